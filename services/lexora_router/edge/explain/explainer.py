"""From a call that is not served to the explanation of what would become of it. Changes nothing."""

from collections.abc import Callable

from lexora.v1 import errors_pb2, explain_pb2
from lexora_contract.answer import Choice
from lexora_contract.enums import value
from lexora_contract.messages import auto_message, fill_bucket
from lexora_router.assembly import Assembly
from lexora_router.call import AUTO, Call, settings_name
from lexora_router.edge.explain.targets import Prospect, Verdict, prospects
from lexora_router.edge.explain.words import rule_in_words, summary, tenant_in_words
from lexora_router.errors import (
    ClassifierDisabled,
    Draining,
    ModelNotFound,
    PermissionDenied,
    RateLimited,
    RouterError,
)
from lexora_router.fleet.routes import RouteRule, Ruling
from lexora_router.policy.rate_charge import Decision

# What stands in the way of them is no model that is not there.
_OWN_WORDS = (ClassifierDisabled, PermissionDenied)


class Explainer:
    """Asks each part that decides about calls what it would decide now. `clock` is monotonic, in seconds."""

    def __init__(self, assembly: Callable[[], Assembly], *, clock: Callable[[], float]) -> None:
        self._assembly = assembly
        self._clock = clock

    async def explain(self, call: Call, asked: str, *, draining: bool) -> explain_pb2.ExplainResponse:
        """What would become of the call; `asked` is the model as the client named it, empty for the default one.

        For a model that no backend lists the backends are asked for their lists again, as by any call for one. Raises
        InvalidRequest when no model is named and there is no default.
        """
        assembly = self._assembly()
        choice, refusal = _choice(assembly, call)
        ruling = await _ruling(assembly, call, asked) if refusal is None else Ruling(RouteRule.NONE, asked, RouteRule.NONE, ())
        if choice is not None:
            ruling = Ruling(RouteRule.AUTO, ruling.model, ruling.by, ruling.targets)
        estimate = assembly.total_estimate(call)
        decision = None if assembly.meter is None else assembly.meter.forecast(call, estimate)
        tenant = _tenant(call, assembly, decision, estimate)
        targets = prospects(assembly, ruling.targets, call, self._clock())
        missing = ModelNotFound.reason if refusal is None else refusal.reason
        verdict, error = _verdict(targets, decision, missing, draining=draining)
        answer = explain_pb2.ExplainResponse(
            route=explain_pb2.RouteExplanation(
                asked=asked,
                model=ruling.model,
                rule=value(explain_pb2.RouteRule, ruling.rule.value),
                reason=rule_in_words(ruling, asked, choice) if not isinstance(refusal, _OWN_WORDS) else refusal.message,
                auto=None if choice is None else auto_message(choice),
            ),
            tenant=tenant,
            targets=[target.message for target in targets],
            verdict=verdict,
            error=value(errors_pb2.ErrorReason, error),
            prompt_cache_key=call.prompt_cache_key,
            session_key=call.session_key,
        )
        answer.summary.extend(summary(answer))
        return answer


def _choice(assembly: Assembly, call: Call) -> tuple[Choice | None, RouterError | None]:
    """What would be chosen for a call for `auto`, whose model this sets; or why nothing is asked."""
    try:
        if assembly.authorization is not None:
            assembly.authorization.check(call)
        choice = assembly.chooser.predict(call) if call.model == AUTO else None
    except (ClassifierDisabled, ModelNotFound, PermissionDenied) as refusal:
        return None, refusal
    if choice is not None:
        call.model = choice.model
    return choice, None


async def _ruling(assembly: Assembly, call: Call, asked: str) -> Ruling:
    routes = assembly.routes
    found = routes.rule(call.model)
    if not found.targets:
        try:
            await routes.discover(call.model)
        except ModelNotFound:
            return found
        found = routes.rule(call.model)
    if call.model and not asked:
        return Ruling(RouteRule.DEFAULT_MODEL, found.model, found.by, found.targets)
    return found


def _verdict(targets: list[Prospect], decision: Decision | None, missing: str, *, draining: bool) -> tuple[Verdict, str]:
    """The verdict on the whole call, and the reason of its error: from the first part that would refuse it."""
    if draining:
        return explain_pb2.VERDICT_REJECT, Draining.reason
    if decision is not None and not decision.allowed:
        return explain_pb2.VERDICT_REJECT, RateLimited.reason
    if not targets:
        return explain_pb2.VERDICT_REJECT, missing
    taker = next((target for target in targets if not target.refusal), targets[-1])
    return taker.message.verdict, taker.refusal


def _tenant(call: Call, assembly: Assembly, decision: Decision | None, estimate: int) -> explain_pb2.TenantExplanation:
    name, tenancy = call.tenant, assembly.tenancy
    own, wish = assembly.config.rate_limit.users.get(settings_name(name)), call.priority
    standing = tenancy.standing(call)
    tenant = explain_pb2.TenantExplanation(
        user=name,
        tier=own.tier if own is not None and own.tier else tenancy.tier(name),
        priority=standing.priority,
        max_priority=tenancy.most_of(call),
        weight=standing.weight,
        estimated_tokens=estimate if decision is None or decision.tokens is None else min(estimate, decision.tokens.limit),
        allowed=decision is None or decision.allowed,
        key=call.principal.key,
    )
    if decision is not None:
        fill_bucket(tenant.rate_limit.requests, decision.requests)
        fill_bucket(tenant.rate_limit.tokens, decision.tokens)
        fill_bucket(tenant.rate_limit.concurrent, decision.concurrent)
    tenant.reason = tenant_in_words(tenant, decision, wish)
    return tenant
