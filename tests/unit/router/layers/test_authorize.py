"""What a principal may use, and what a refusal gives away."""

import pytest
from tests.unit.router.support import HEAD, Client, Scripted, make_call

from lexora_contract.operations import CHAT, EMBEDDINGS
from lexora_router.call import AUTO, Handler
from lexora_router.errors import InvalidRequest, ModelNotFound, PermissionDenied, RouterError
from lexora_router.layers.authorize import Authorization, Authorize
from lexora_router.principal import ANYBODY, Principal


def allowing(inner: Handler, default: str = "") -> Authorize:
    return Authorize(inner, authorization=Authorization(default, "salt of {}".format))


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
        await allowing(inner)(call, Client())
        return
    with pytest.raises(refusal):
        await allowing(inner)(call, Client())
    assert inner.calls == []


async def test_a_model_that_is_not_allowed_looks_like_one_that_is_not_there() -> None:
    call = make_call(path=CHAT, model="gpt")
    call.principal = CHATTER
    with pytest.raises(ModelNotFound) as refused:
        await allowing(Scripted())(call, Client())
    assert refused.value.message == ModelNotFound("gpt").message


@pytest.mark.parametrize(
    ("models", "default", "model", "body"),
    [
        ((), "", "", b"{}"),
        (("*",), "", None, b""),
        (("m?",), "m1", "m1", b'{"model":"m1"}'),
        (("m?",), "other", None, b""),
    ],
)
async def test_a_call_that_names_no_model_needs_a_default_one_that_its_principal_may_use(
    models: tuple[str, ...], default: str, model: str | None, body: bytes
) -> None:
    inner, call = Scripted(HEAD), make_call(path=CHAT, model="", body=b"{}")
    call.principal = Principal("t", models=models)
    authorize = allowing(inner, default)
    if model is None:
        with pytest.raises(InvalidRequest, match="No model is named; this key needs one"):
            await authorize(call, Client())
        return
    await authorize(call, Client())
    assert (call.model, call.body) == (model, body)


async def test_calls_that_have_no_model_are_not_asked_for_one() -> None:
    inner, call = Scripted(HEAD), make_call(path=CHAT, model="")
    call.principal = CHATTER
    await Authorize(inner, authorization=Authorization("", str), models=False)(call, Client())
    assert len(inner.calls) == 1


async def test_a_call_gets_the_salt_of_its_tenant() -> None:
    inner, call = Scripted(HEAD), make_call(account="t", principal=CHATTER, model="m1")
    await allowing(inner)(call, Client())
    assert call.cache_salt == "salt of t"
