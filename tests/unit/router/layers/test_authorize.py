"""What a principal may use, and what a refusal gives away."""

import pytest
from tests.unit.router.support import HEAD, Client, Scripted, make_call

from lexora_contract.operations import CHAT, EMBEDDINGS
from lexora_router.call import AUTO
from lexora_router.errors import ModelNotFound, PermissionDenied, RouterError
from lexora_router.layers.authorize import Authorize
from lexora_router.principal import ANYBODY, Principal

CHATTER = Principal("t", models=("qwen*", "m?"), operations=(CHAT,))


@pytest.mark.parametrize(
    ("principal", "path", "model", "refusal"),
    [
        (ANYBODY, CHAT, "any", None),
        (CHATTER, CHAT, "qwen3-32b", None),
        (CHATTER, CHAT, "m1", None),
        (CHATTER, CHAT, AUTO, None),
        (CHATTER, CHAT, "m12", ModelNotFound),
        (CHATTER, CHAT, "Qwen3", ModelNotFound),
        (CHATTER, CHAT, "a qwen", ModelNotFound),
        (CHATTER, CHAT, "m\n", None),
        (CHATTER, EMBEDDINGS, "qwen3-32b", PermissionDenied),
    ],
)
async def test_a_principal_may_use_what_its_patterns_describe(
    principal: Principal, path: str, model: str, refusal: type[RouterError] | None
) -> None:
    inner, call = Scripted(HEAD), make_call(path=path, model=model)
    call.principal = principal
    if refusal is None:
        await Authorize(inner)(call, Client())
        return
    with pytest.raises(refusal):
        await Authorize(inner)(call, Client())
    assert inner.calls == []


async def test_a_model_that_is_not_allowed_looks_like_one_that_is_not_there() -> None:
    call = make_call(path=CHAT, model="gpt")
    call.principal = CHATTER
    with pytest.raises(ModelNotFound) as refused:
        await Authorize(Scripted())(call, Client())
    assert refused.value.message == ModelNotFound("gpt").message
