from lexora_router.policy.waiting_places import WaitingPlaces


def test_one_source_may_have_all_places_until_another_needs_one() -> None:
    places, lost = WaitingPlaces(4), list[int]()
    numbers = [places.take("a", lambda at=at: lost.append(at)) for at in range(4)]
    assert None not in numbers
    assert places.take("a", lambda: lost.append(-1)) is None  # its own it takes from itself
    assert places.take("b", lambda: lost.append(10)) is not None
    assert places.take("b", lambda: lost.append(11)) is not None
    assert (lost, places.taken) == ([3, 2], 4)  # the newest first
    assert places.take("b", lambda: lost.append(12)) is None  # both have two
    assert places.take("c", lambda: lost.append(20)) is not None
    assert len(lost) == 3


def test_a_place_is_given_back_once() -> None:
    places = WaitingPlaces(2)
    first, second = places.take("a", lambda: None), places.take("a", lambda: None)
    assert first is not None
    assert second is not None
    assert places.take("b", lambda: None) is not None
    places.leave("a", second)  # which it has lost
    assert places.taken == 2
    for _ in range(2):
        places.leave("a", first)
        assert places.taken == 1
