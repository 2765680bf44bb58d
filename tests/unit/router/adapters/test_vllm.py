import json

from hypothesis import given
from hypothesis import strategies as st
from tests.unit.router.support import make_call, make_target

from lexora_contract.operations import OPERATIONS
from lexora_contract.priority import HIGH, LOW, NORMAL
from lexora_router.adapters.vllm import to_vllm
from lexora_router.config import BackendConfig

priorities = st.integers(LOW, HIGH)


def test_vllm_gets_its_own_polarity() -> None:
    assert [to_vllm(priority) for priority in (HIGH, NORMAL, LOW)] == [-50, 0, 50]


@given(priorities, priorities)
def test_the_order_is_turned_around_for_vllm(a: int, b: int) -> None:
    assert (a > b) == (to_vllm(a) < to_vllm(b))


def test_what_an_engine_computes_has_the_salt_of_its_tenant() -> None:
    vllm = BackendConfig(url="http://e:1", type="vllm").adapter({})
    other = BackendConfig(url="http://e:1", type="openai_compatible").adapter({})
    salted = []
    for path in OPERATIONS:
        body = b'{"model":"m","x":1,"cache_salt":"theirs"}'
        call = make_call(path=path, target=make_target(), cache_salt="ours", body=body, stream=False)
        salted += [path] if json.loads(vllm.body(call)[0])["cache_salt"] == "ours" else []
        assert other.body(call)[0] == body
        call.cache_salt = ""
        assert vllm.body(call)[0] == body
    assert salted == [path for path, row in OPERATIONS.items() if row.queued]
    assert {"/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages", "/v1/embeddings"} <= set(salted)
