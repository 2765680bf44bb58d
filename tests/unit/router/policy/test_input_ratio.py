import pytest

from lexora_router.policy.input_ratio import MAX_TENANTS, InputRatios


def test_the_last_calls_of_a_tenant_tell_what_the_next_will_cost() -> None:
    ratios = InputRatios()
    assert ratios.of("a") == 1
    for _ in range(3):
        ratios.learn("a", 6000, 60)
    assert ratios.of("a") == pytest.approx(0.01)
    assert ratios.of("b") == 1
    for _ in range(30):
        ratios.learn("a", 100, 200)
    assert ratios.of("a") == pytest.approx(2, rel=0.1)


def test_an_absurd_count_is_bounded() -> None:
    ratios = InputRatios()
    ratios.learn("a", 1, 2**53)
    assert ratios.of("a") == 100


def test_those_that_were_served_last_are_remembered() -> None:
    ratios = InputRatios()
    for number in range(MAX_TENANTS + 1):
        ratios.learn(str(number), 100, 50)
        ratios.learn("always", 100, 50)
    assert (ratios.of("0"), ratios.of("always"), len(ratios._sums)) == (1, 0.5, MAX_TENANTS)
