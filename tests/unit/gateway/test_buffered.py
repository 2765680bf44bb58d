import pytest

from lexora_gateway.buffered import OWNER_SHARE, BufferedBytes
from lexora_gateway.errors import Refused

BODY = 100
SHARE = 1000
ALL = SHARE * OWNER_SHARE


def refusal(buffered: BufferedBytes, count: int, *owners: str) -> tuple[int, str | None]:
    with pytest.raises(Refused) as refused:
        buffered.add(count, owners)
    failure = refused.value.failure
    assert {(b"retry-after", b"1"), (b"connection", b"close")} <= set(failure.headers)
    return failure.status, failure.code


def test_one_owner_has_a_share_and_the_others_theirs() -> None:
    buffered = BufferedBytes(ALL, BODY)
    buffered.add(SHARE, ("a",))
    assert refusal(buffered, 1, "a") == (429, "too_many_buffered_bytes")
    assert refusal(buffered, 1, "b", "a") == (429, "too_many_buffered_bytes")
    buffered.add(SHARE, ("b",))
    buffered.give_back(1, ("a",))
    buffered.add(1, ("a",))
    assert buffered.held == 2 * SHARE


def test_all_together_are_bounded() -> None:
    buffered = BufferedBytes(ALL, BODY)
    for number in range(OWNER_SHARE):
        buffered.add(SHARE, (str(number),))
    assert refusal(buffered, 1, "another") == (503, "overloaded")
    assert refusal(buffered, 1) == (503, "overloaded")


def test_a_length_that_does_not_fit_is_refused_before_a_byte_of_it_came() -> None:
    buffered = BufferedBytes(ALL, BODY)
    buffered.check(SHARE, ("a",))
    with pytest.raises(Refused):
        buffered.check(SHARE + 1, ("a",))
    assert buffered.held == 0


@pytest.mark.parametrize("most", [1, BODY, BODY * OWNER_SHARE - 1])
def test_one_body_fits_in_any_case(most: int) -> None:
    BufferedBytes(most, BODY).add(BODY, ("a",))


def test_nothing_is_kept_of_owners_that_have_gone() -> None:
    buffered = BufferedBytes(ALL, BODY)
    for number in range(10):
        buffered.add(number, (str(number),))
        buffered.give_back(number, (str(number),))
    assert (buffered.held, buffered._by_owner) == (0, {})
