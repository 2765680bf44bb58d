from hypothesis import given
from hypothesis import strategies as st

from lexora_contract.priority import HIGH, LOW, NORMAL
from lexora_router.adapters.vllm import to_vllm

priorities = st.integers(LOW, HIGH)


def test_vllm_gets_its_own_polarity() -> None:
    assert [to_vllm(priority) for priority in (HIGH, NORMAL, LOW)] == [-50, 0, 50]


@given(priorities, priorities)
def test_the_order_is_turned_around_for_vllm(a: int, b: int) -> None:
    assert (a > b) == (to_vllm(a) < to_vllm(b))
