from dataclasses import replace

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


def test_the_response_of_one_tenant_is_not_taken_over_by_another() -> None:
    homes, other = ResponseHomes(), replace(HOME, tenant="other")
    homes.put("a", HOME, 0.0)
    homes.put("a", other, 1.0)
    assert homes.get("a", 1.0) == HOME
    homes.put("a", other, TTL_SECONDS)
    assert homes.get("a", TTL_SECONDS) == other


def test_a_tenant_with_many_responses_makes_room_for_one_with_few() -> None:
    homes = ResponseHomes()
    few, many = replace(HOME, tenant="few"), replace(HOME, tenant="many")
    homes.put("first", few, 0.0)
    for number in range(MAX_RESPONSES + 50):
        homes.put(str(number), many, 0.0)
    assert homes.get("first", 0.0) == few
    assert homes.get("49", 0.0) is None
    assert homes.get(str(MAX_RESPONSES + 49), 0.0) == many
    assert len(homes._homes) == MAX_RESPONSES
