from math import inf

from lexora_router.policy.usual_time import FACTOR, GENERATION, MAX_KINDS, MIN_ANSWERS, UsualTimes


def test_little_is_known_of_a_new_kind() -> None:
    usual = UsualTimes()
    for _ in range(MIN_ANSWERS - 1):
        usual.of("a").add(1.0)
    assert usual.of("a").bound == inf
    usual.of("a").add(3.0)
    assert (usual.of("a").bound, usual.of("b").bound) == (FACTOR * 3.0, inf)


def test_long_answers_are_remembered_for_a_generation_and_forgotten_after_two() -> None:
    usual = UsualTimes()
    usual.of("a").add(900.0)
    for _ in range(2 * GENERATION - 2):
        usual.of("a").add(1.0)
    assert usual.of("a").bound == FACTOR * 900.0
    usual.of("a").add(1.0)
    assert usual.of("a").bound == FACTOR * 1.0


def test_clients_that_invent_kinds_fill_no_memory() -> None:
    usual = UsualTimes()
    for number in range(10 * MAX_KINDS):
        usual.of(number).add(1.0)
    assert len(usual._kinds) == MAX_KINDS
