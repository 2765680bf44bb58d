"""Explanations of a router that was never started: what they say, and that they change nothing."""

import time
from typing import Any

import pytest
from tests.unit.router.snapshot import snapshot

from lexora.v1 import errors_pb2, explain_pb2, raw_pb2
from lexora.v1.call_pb2 import Call
from lexora.v1.explain_pb2 import ExplainRequest, ExplainResponse
from lexora.v1.health_pb2 import BREAKER_STATE_CLOSED, BREAKER_STATE_OPEN
from lexora.v1.options_pb2 import FALLBACK_POLICY_NEVER, CallOptions
from lexora_contract.port import CallContext, CallFailed
from lexora_router.config import Config
from lexora_router.fleet.endpoint_health import Condition
from lexora_router.policy.failures import occasions
from lexora_router.process.app import RouterApp

BODY = b'{"model":"fast","messages":[],"user":"bob","max_tokens":100}'


def config(**sections: Any) -> Config:
    main = {
        "urls": ["http://127.0.0.1:1", "http://127.0.0.1:2"],
        "models": ["m"],
        "model_mapping": {"m": "engine-m"},
        "max_concurrency": 2,
        "fallback_backends": ["small"],
    }
    small = {"url": "http://127.0.0.1:3", "models": ["s"], "fallback_models": {"m": "s"}, "max_concurrency": 2}
    routing = {"backends": {"main": main, "small": small}, "aliases": {"fast": "m"}, **sections.pop("routing", {})}
    return Config.model_validate({"routing": routing, **sections})


def condition(app: RouterApp, number: int = 0, backend: str = "main") -> Condition:
    return app._assembly.backends[backend].endpoints[number].condition


async def explain(app: RouterApp, request: ExplainRequest | None = None, **options: Any) -> ExplainResponse:
    """The explanation, which must change nothing at all."""
    request = request or ExplainRequest(call=Call(options=CallOptions(**options)), model="m")
    app._assembly.catalogue._refreshed_at = time.monotonic()  # nobody is there to be asked
    before = snapshot([app._assembly.backends, app._assembly.budgets, app._limiter, app._stats, app.guard._calls])
    metrics = _calls(app)
    answer = await app.services.admin.explain(request, CallContext())
    assert snapshot([app._assembly.backends, app._assembly.budgets, app._limiter, app._stats, app.guard._calls]) == before
    assert _calls(app) == metrics
    return answer


def _calls(app: RouterApp) -> list[str]:
    return [line for line in app.metrics("")[0].decode().splitlines() if line.startswith("lexora_")]


async def refused(app: RouterApp, request: ExplainRequest) -> str:
    with pytest.raises(CallFailed) as raised:
        await app.services.admin.explain(request, CallContext())
    return raised.value.message


# -- the route


async def test_an_alias_leads_to_its_model_s_targets_under_the_engines_names() -> None:
    answer = await explain(RouterApp(config()), ExplainRequest(model="fast"))
    assert (answer.route.asked, answer.route.model, answer.route.rule) == ("fast", "m", explain_pb2.ROUTE_RULE_ALIAS)
    assert answer.route.reason == "`fast` is an alias of `m`, which is configured at backend `main`."
    assert [(target.backend, target.model) for target in answer.targets] == [("main", "engine-m"), ("small", "s")]
    assert (answer.verdict, answer.error) == (explain_pb2.VERDICT_DISPATCH, 0)
    assert answer.summary[0] == "The call would be sent at once, to `main`."


async def test_an_unknown_model_has_no_targets() -> None:
    answer = await explain(RouterApp(config()), ExplainRequest(model="ghost"))
    assert (answer.verdict, answer.error, list(answer.targets)) == (
        explain_pb2.VERDICT_REJECT,
        errors_pb2.ERROR_REASON_MODEL_NOT_FOUND,
        [],
    )
    assert answer.route.rule == explain_pb2.ROUTE_RULE_NONE
    assert "no backend serves it" in answer.route.reason
    assert answer.summary[0] == "The call would be refused: MODEL_NOT_FOUND."


async def test_without_a_name_it_is_the_default_model() -> None:
    app = RouterApp(config(routing={"default_backend": "main"}))
    answer = await explain(app, ExplainRequest())
    assert (answer.route.asked, answer.route.model, answer.route.rule) == ("", "m", explain_pb2.ROUTE_RULE_DEFAULT_MODEL)
    answer = await explain(app, ExplainRequest(model="ghost"))
    assert (answer.route.rule, answer.targets[0].backend, answer.targets[0].model) == (
        explain_pb2.ROUTE_RULE_DEFAULT_BACKEND,
        "main",
        "ghost",
    )


async def test_no_name_and_no_default_is_the_error_that_the_call_gets() -> None:
    assert await refused(RouterApp(config()), ExplainRequest()) == "No model is named, and no default model is configured."


# -- the call


async def test_of_a_call_the_body_says_model_user_and_size() -> None:
    app = RouterApp(config(rate_limit={"tokens_per_minute": 1000}))
    call = raw_pb2.RawCall(path="/v1/chat/completions", body=BODY)
    answer = await explain(app, ExplainRequest(call=Call(raw=call), model="ignored"))
    assert (answer.route.asked, answer.tenant.user, answer.tenant.estimated_tokens) == ("fast", "bob", 100 + len(BODY) // 4)
    assert answer.tenant.rate_limit.tokens.remaining == 1000 - answer.tenant.estimated_tokens
    streamed = raw_pb2.RawCall(path="/v1/chat/completions", body=b'{"model":"m","messages":[],"stream":true}')
    assert (await explain(app, ExplainRequest(call=Call(raw=streamed)))).verdict == explain_pb2.VERDICT_DISPATCH


# -- the tenant


async def test_the_tenant_has_its_priority_weight_and_limits() -> None:
    limits = {"default_rate": 1, "default_burst": 2, "tiers": {"gold": {"burst": 5}}, "users": {"eve": {"tier": "gold"}}}
    app = RouterApp(
        config(tenants={"bob": {"weight": 3, "priority": 20, "max_priority": 60, "tier": "gold"}}, rate_limit=limits)
    )
    tenant = (await explain(app, user="bob", priority=90)).tenant
    assert (tenant.user, tenant.tier, tenant.priority, tenant.max_priority, tenant.weight) == ("bob", "gold", 60, 60, 3.0)
    assert (tenant.rate_limit.requests.limit, tenant.rate_limit.requests.remaining) == (5, 4)
    assert "priority 60 (90 was asked for, 60 is the most) and weight 3" in tenant.reason
    assert (await explain(app, user="bob")).tenant.priority == 20
    assert (await explain(app, user="eve")).tenant.tier == "gold"
    assert (await explain(app)).tenant.user == "anonymous"


async def test_who_is_over_its_limit_is_refused_wherever_slots_are_free() -> None:
    app = RouterApp(config(rate_limit={"default_rate": 0.5, "default_burst": 1}))
    app._limiter.check("bob", 1, time.monotonic())
    answer = await explain(app, user="bob")
    assert (answer.verdict, answer.error, answer.tenant.allowed) == (
        explain_pb2.VERDICT_REJECT,
        errors_pb2.ERROR_REASON_RATE_LIMITED,
        False,
    )
    assert "over its rate limit of requests: 0 of 1 requests and" in answer.tenant.reason
    assert answer.targets[0].verdict == explain_pb2.VERDICT_DISPATCH
    assert (await explain(app, user="eve")).tenant.allowed
    ghost = await explain(app, ExplainRequest(call=Call(options=CallOptions(user="bob")), model="ghost"))
    assert ghost.error == errors_pb2.ERROR_REASON_RATE_LIMITED, "the limit comes first, also for models that nobody knows"


async def test_without_rate_limits_none_are_told() -> None:
    tenant = (await explain(RouterApp(config(rate_limit={"enabled": False})))).tenant
    assert (tenant.allowed, tenant.HasField("rate_limit")) == (True, False)
    assert "no rate limits" in tenant.reason


# -- the targets


async def test_the_likeliest_endpoint_comes_first_with_what_the_picker_compares() -> None:
    app = RouterApp(config())
    condition(app, 0).in_flight = 1
    (first, second) = (await explain(app)).targets[0].endpoints
    assert (first.address, first.score, first.eligible, first.limit) == ("http://127.0.0.1:2", 0.0, True, 2)
    assert (second.address, second.score, second.in_flight, second.reason) == ("http://127.0.0.1:1", 1.0, 1, "")
    condition(app, 0).in_flight = 2
    (first, second) = (await explain(app)).targets[0].endpoints
    assert (second.eligible, second.HasField("score"), second.reason) == (False, False, "no free slot: 2 of 2 are taken")


async def test_a_returning_endpoint_has_its_share_of_the_score() -> None:
    app = RouterApp(config(health={"slow_start": 6e5}))
    condition(app, 0).in_flight = condition(app, 1).in_flight = 1
    condition(app, 0).returned(time.monotonic())
    (first, second) = (await explain(app)).targets[0].endpoints
    assert (first.address, second.weight, round(second.score, 3)) == ("http://127.0.0.1:2", 0.1, 10.0)


async def test_a_broken_endpoint_says_why_and_the_fallback_takes_over() -> None:
    app, now = RouterApp(config(health={"open_time": 1000.0, "max_open_time": 1000.0})), time.monotonic()
    condition(app, 0)._breaker.trip(now)
    condition(app, 1).found(healthy=False, reason="Connection refused", now=now)
    answer = await explain(app)
    (guess, out) = answer.targets[0].endpoints
    assert (guess.eligible, guess.reason, guess.breaker) == (True, "down: Connection refused", BREAKER_STATE_CLOSED)
    assert (out.eligible, out.breaker) == (False, BREAKER_STATE_OPEN)
    assert out.reason.startswith("breaker open, a trial in ")
    assert "most likely fail there" in answer.summary[0]
    assert answer.summary[4].startswith("`main`: http://127.0.0.1:1 gets nothing now (breaker open")
    condition(app, 1)._breaker.trip(now)
    answer = await explain(app)
    assert [target.verdict for target in answer.targets] == [explain_pb2.VERDICT_REJECT, explain_pb2.VERDICT_DISPATCH]
    assert answer.targets[0].reason.startswith("NO_HEALTHY_ENDPOINT: Backend `main` has no endpoint that takes calls now")
    assert answer.summary[0] == "The call would be sent at once, to `small`, a fallback, for `main` would refuse it."
    condition(app, 0, "small")._breaker.trip(now)
    answer = await explain(app)
    assert (answer.verdict, answer.error) == (explain_pb2.VERDICT_REJECT, errors_pb2.ERROR_REASON_NO_HEALTHY_ENDPOINT)


async def test_a_fallback_that_is_forbidden_is_no_target() -> None:
    answer = await explain(RouterApp(config()), fallback=FALLBACK_POLICY_NEVER)
    assert [(target.backend, target.falls_back_on) for target in answer.targets] == [("main", "")]
    answer = await explain(RouterApp(config(fallback={"enabled": False})))
    assert len(answer.targets) == 1


async def test_when_a_target_gives_up_is_told_for_all_but_the_last() -> None:
    main, small = (await explain(RouterApp(config()))).targets
    assert main.falls_back_on == occasions(on_rate_limit=True)
    assert "429" in main.falls_back_on
    assert small.falls_back_on == ""
    main, _ = (await explain(RouterApp(config(fallback={"on_rate_limit": False})))).targets
    assert "429" not in main.falls_back_on


async def test_a_full_pool_is_a_queue_and_one_without_room_a_refusal() -> None:
    app = RouterApp(config())
    condition(app, 0).in_flight = condition(app, 1).in_flight = 2
    answer = await explain(app)
    main = answer.targets[0]
    assert (answer.verdict, main.position, main.waiting, main.max_waiting) == (explain_pb2.VERDICT_QUEUE, 1, 0, 1000)
    assert not main.HasField("wait_time")
    assert "for how long is not known yet" in main.reason
    assert answer.summary[0] == "The call would wait at `main`: place 1 in the queue."
    app = RouterApp(config(queue={"max_size": 0}, fallback={"enabled": False}))
    condition(app, 0).in_flight = condition(app, 1).in_flight = 2
    answer = await explain(app)
    assert (answer.verdict, answer.error) == (explain_pb2.VERDICT_REJECT, errors_pb2.ERROR_REASON_QUEUE_FULL)


async def test_a_wait_that_is_longer_than_allowed_is_told() -> None:
    app = RouterApp(config(queue={"timeout": 1}))
    condition(app, 0).in_flight = condition(app, 1).in_flight = 2
    app._assembly.backends["main"].pool._parts.waiting._drain.finished(40.0, time.monotonic())
    answer = await explain(app)
    assert answer.targets[0].wait_time.seconds == 10
    assert "about 10.0 s. That is more than the 1 s" in answer.targets[0].reason


async def test_many_broken_endpoints_are_named_in_part() -> None:
    urls = [f"http://127.0.0.1:{port}" for port in range(1, 10)]
    app = RouterApp(Config.model_validate({"routing": {"backends": {"main": {"urls": urls, "models": ["m"]}}}}))
    for number in range(1, 9):
        condition(app, number).found(healthy=False, reason="gone", now=time.monotonic())
    summary = (await explain(app)).summary
    assert sum("gets nothing now (down: gone)" in line for line in summary) == 5
    assert summary[-1] == "`main`: 3 more endpoints get nothing now."


async def test_a_router_that_drains_takes_nothing_and_still_explains() -> None:
    app = RouterApp(config())
    app.guard.draining = True
    answer = await explain(app)
    assert (answer.verdict, answer.error) == (explain_pb2.VERDICT_REJECT, errors_pb2.ERROR_REASON_DRAINING)
    assert answer.targets[0].verdict == explain_pb2.VERDICT_DISPATCH
