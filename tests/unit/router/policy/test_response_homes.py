from lexora_router.policy import response_homes
from lexora_router.policy.response_homes import MAX_RESPONSES, TTL_SECONDS, Home, ResponseHomes

HOME = Home("main", "http://e:1", "asked", "served")


def test_a_home_is_known_for_its_time() -> None:
    homes = ResponseHomes()
    homes.put("a", HOME, 0.0)
    assert homes.get("a", TTL_SECONDS - 1) == HOME
    assert homes.get("a", TTL_SECONDS) is None
    assert homes.get("b", 0.0) is None


def test_the_oldest_makes_room() -> None:
    homes = ResponseHomes()
    for number in range(MAX_RESPONSES):
        homes.put(str(number), HOME, 0.0)
    homes.put("0", HOME, 0.0)  # made again: the newest
    homes.put("one more", HOME, 0.0)
    assert homes.get("0", 0.0) == HOME
    assert homes.get("1", 0.0) is None
    assert len(homes._homes) == response_homes.MAX_RESPONSES
