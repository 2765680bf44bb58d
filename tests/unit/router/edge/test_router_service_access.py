"""Callers that show credentials: whose their calls are, what they see, and what is counted for strangers."""

from typing import Any, cast

import pytest
from google.rpc.error_details_pb2 import ErrorInfo
from tests.support.clock import jumping, now
from tests.unit.router.edge.test_router_service import (
    ANSWER,
    BODY,
    CHAT,
    JSON_HEAD,
    SEEN,
    around,
    detail,
    raw,
    service,
    surrounded,
)

from lexora.v1 import call_pb2
from lexora.v1.chat_pb2 import ChatRequest
from lexora.v1.router_pb2 import GenerateRequest, ReportRefusalRequest
from lexora_contract.access import Scope
from lexora_contract.answer import Reply
from lexora_contract.port import CallContext, CallFailed, Options
from lexora_contract.rpcs import EXPLAIN, STREAM
from lexora_router.access.operators import OPERATOR
from lexora_router.call import Call
from lexora_router.errors import AccessUnavailable, QueueFull, Unauthenticated
from lexora_router.layers.rate_limit import Meter
from lexora_router.policy.rate_limiter import RateLimiter
from lexora_router.policy.rate_limits import LimitRules, RateLimits
from lexora_router.principal import Principal

ACME = Principal("acme", "id1", models=("m",), scopes=frozenset((Scope.KNOWN, Scope.CALL)))


class ScriptedAccess:
    """Knows one credential at once, another one after waiting, and cannot find out about a third."""

    def known(self, context: CallContext) -> Principal | None:
        credential = dict(context.metadata).get("authorization")
        if credential is None:
            raise Unauthenticated("No credentials.")
        return ACME if credential == "Bearer known" else None

    async def find(self, context: CallContext) -> Principal:
        match dict(context.metadata)["authorization"]:
            case "Bearer found":
                return ACME
            case "Bearer unclear":
                raise AccessUnavailable("Cannot be found out now.")
        raise Unauthenticated("No such key.")


def shown(credential: str | None, *more: tuple[str, str]) -> CallContext:
    return surrounded(*(() if credential is None else (("authorization", f"Bearer {credential}"),)), *more)


def guarded(**more: Any) -> Any:
    return service(Reply(JSON_HEAD, ANSWER), access=ScriptedAccess(), **more)


@jumping
@pytest.mark.parametrize("credential", ["known", "found"])
async def test_a_call_is_charged_to_the_tenant_of_its_credentials_whatever_it_says(credential: str) -> None:
    made, pipeline = guarded()
    bodies = [
        BODY,
        b'{"model":"m","messages":[],"user":"victim"}',
        b'{"model":"m","messages":[],"safety_identifier":"victim"}',
        b'{"model":"m","messages":[],"metadata":{"user_id":"victim"}}',
    ]
    for body in bodies:
        await made.generate(raw(body), shown(credential, ("x-lexora-tenant", "victim"), ("x-lexora-user", "bob")))
        await made.generate(raw(body, tenant="victim"), shown(credential))
        await made.generate(raw(body, user="victim"), shown(credential))
    assert {(call.tenant, call.principal) for call in pipeline.calls} == {("acme", ACME)}
    assert {call.user for call in pipeline.calls} == {"", "victim", "bob"}


STRANGERS = [(None, "UNAUTHENTICATED"), ("wrong", "UNAUTHENTICATED"), ("unclear", "ACCESS_UNAVAILABLE")]


@jumping
@pytest.mark.parametrize(("credential", "reason"), STRANGERS)
async def test_a_stranger_is_counted_under_no_name_and_charges_no_bucket(credential: str | None, reason: str) -> None:
    limiter = RateLimiter(LimitRules(RateLimits(1e-6, 1)), now())
    made, pipeline = guarded(meter=Meter(limiter, lambda _: "", lambda _: 1, lambda _: 1, now))
    named = (("x-lexora-tenant", "acme"), ("x-lexora-user", "bob"), ("x-forwarded-for", "192.0.2.7"))
    requests = [
        made.generate(raw(b'{"user":"bob"}', tenant="acme"), shown(credential, *named)),
        made.generate(raw(b"{", user="bob"), shown(credential, *named)),
        made.report_refusal(ReportRefusalRequest(http_status=415), shown(credential, *named)),
        around(made).refuse_undecodable("/lexora.v1.RouterService/Generate", shown(credential, *named)),
        around(made).foresee(STREAM, Options(user="bob", tenant="acme"), shown(credential, *named), 10**6),
    ]
    SEEN.calls.clear()
    for request in requests:
        with pytest.raises(CallFailed) as refused:
            await request
        assert detail(refused.value, ErrorInfo).reason == reason
    assert [(call.tenant, call.user, call.account) for call in SEEN.calls] == [("anonymous", "", "")] * len(requests)
    assert (len(limiter), pipeline.calls) == (0, [])
    made.guard.draining = True
    with pytest.raises(CallFailed) as refused:
        await made.generate(raw(b"{}", tenant="acme"), shown(credential))
    assert detail(refused.value, ErrorInfo).reason == reason


@jumping
async def test_what_is_malformed_is_charged_to_the_tenant_that_sent_it() -> None:
    limiter = RateLimiter(LimitRules(RateLimits(1e-6, 2)), now())
    made, _ = guarded(meter=Meter(limiter, lambda _: "", lambda _: 1, lambda _: 1, now))
    SEEN.calls.clear()
    reasons = []
    for request in (
        made.generate(raw(b"{", user="bob", tenant="other"), shown("known")),
        made.report_refusal(ReportRefusalRequest(http_status=415), shown("found")),
        around(made).refuse_undecodable("/lexora.v1.RouterService/Generate", shown("known")),
    ):
        try:
            await request
        except CallFailed as refused:
            reasons.append(detail(refused, ErrorInfo).reason)
    assert reasons == ["INVALID_REQUEST", "RATE_LIMITED"]
    assert [call.tenant for call in SEEN.calls] == ["acme"] * 3


@jumping
async def test_before_a_body_is_read_it_is_asked_only_what_its_head_can_say() -> None:
    sizes: list[tuple[str, int]] = []

    def foresee(call: Call, size: int) -> None:
        sizes.append((call.tenant, size))
        if size > 100:
            raise QueueFull("full", 9.0)

    made, _ = guarded(foresee=foresee)
    SEEN.calls.clear()
    await around(made).foresee(STREAM, Options(tenant="other"), shown("found"), 100)
    with pytest.raises(CallFailed) as refused:
        await around(made).foresee(STREAM, Options(tenant="other"), shown("known"), 101)
    assert detail(refused.value, ErrorInfo).reason == "QUEUE_FULL"
    assert sizes == [("acme", 100), ("acme", 101)]
    assert SEEN.statuses[-1] == 429
    with pytest.raises(CallFailed) as refused:  # to explain takes more than to call, and is not counted
        await around(made).foresee(EXPLAIN, Options(), shown("known"), 1)
    assert detail(refused.value, ErrorInfo).reason == "PERMISSION_DENIED"
    assert [call.tenant for call in SEEN.calls] == ["acme"]


@jumping
async def test_the_default_model_is_for_those_that_may_use_it() -> None:
    made, pipeline = guarded()
    chat = GenerateRequest(call=call_pb2.Call(chat=ChatRequest(messages=[])))
    with pytest.raises(CallFailed) as refused:
        await made.generate(chat, shown("known"))
    assert (refused.value.param, "default-m" in refused.value.message) == ("model", False)
    assert pipeline.calls == []
    smuggled = ChatRequest(model="m", extra_json='{"model":"other","mod\\u0065l":"other","Model":"other"}')
    try:
        await made.generate(GenerateRequest(call=call_pb2.Call(chat=smuggled)), shown("known"))
    except CallFailed:
        assert pipeline.calls == []
        return
    [call] = pipeline.calls
    assert call.path == CHAT
    assert b'"m"' in cast("bytes", call.body)
    assert call.model == "m"


@jumping
async def test_an_operator_without_credentials_makes_no_calls_under_names_that_it_claims() -> None:
    class Operators(ScriptedAccess):
        def known(self, context: CallContext) -> Principal:
            return OPERATOR

    made, pipeline = service(Reply(JSON_HEAD, ANSWER), access=Operators())
    SEEN.calls.clear()
    with pytest.raises(CallFailed) as refused:
        await made.generate(raw(BODY, user="bob", tenant="acme"), shown(None))
    assert detail(refused.value, ErrorInfo).reason == "UNAUTHENTICATED"
    assert [(call.tenant, call.account) for call in SEEN.calls] == [("anonymous", "")]
    assert pipeline.calls == []
