"""Explanations in words, for operators."""

from collections.abc import Iterator

from lexora.v1 import errors_pb2, explain_pb2, health_pb2
from lexora_contract.answer import Choice
from lexora_contract.enums import word
from lexora_router.errors import RouterError
from lexora_router.fleet.routes import RouteRule, Ruling
from lexora_router.policy.rate_charge import Decision

# Of the endpoints that get nothing, so many are named one by one.
MOST_NAMED = 5
MAX_NAME = 200


def rule_in_words(ruling: Ruling, asked: str, choice: Choice | None = None) -> str:
    """Why this model goes to this route; `choice` is what it was chosen by for `auto`."""
    name, own = asked[:MAX_NAME], ruling.model[:MAX_NAME]
    if choice is not None:
        task = f", of kind `{choice.task_type}`" if choice.task_type else ""
        return f"`auto` becomes `{own}`{task} ({choice.by}: {choice.reasoning.rstrip('.')}), which {_found(ruling)}."
    if ruling.rule is RouteRule.DEFAULT_MODEL:
        return f"No model is named, so it is the default one, `{own}`, which {_found(ruling)}."
    if ruling.rule is RouteRule.ALIAS:
        return f"`{name}` is an alias of `{own}`, which {_found(ruling)}."
    if not name:
        return f"No model is named, and none is known: {_backend(ruling)} is the default backend."
    return f"`{name}` {_found(ruling)}."


def _found(ruling: Ruling) -> str:
    match ruling.by:
        case RouteRule.CONFIGURED:
            return f"is configured at backend {_backend(ruling)}"
        case RouteRule.LISTED:
            return f"is not configured, but listed by backend {_backend(ruling)}"
        case RouteRule.DEFAULT_BACKEND:
            return f"is neither configured nor listed anywhere, so it goes to the default backend {_backend(ruling)}"
    return "is neither configured nor listed anywhere, and no default backend takes such models: no backend serves it"


def _backend(ruling: Ruling) -> str:
    return f"`{ruling.targets[0].backend}`"


def longest_wait(asked: float | None, configured: float) -> tuple[float, str]:
    """How long a call may wait for its first slot, in seconds, and which bound that is: the call's own where it is less."""
    if asked is not None and asked < configured:
        return asked, "its own max_queue_time"
    return configured, "queue.timeout"


def target_in_words(target: explain_pb2.TargetExplanation, refusal: RouterError | None, longest: tuple[float, str]) -> str:
    """Why this target would do that; `longest` is as `longest_wait` has it."""
    if refusal is not None:
        return f"{refusal.reason}: {refusal.message}"
    if target.position:
        return _queued(target, *longest)
    free = [endpoint for endpoint in target.endpoints if endpoint.eligible]
    first = free[0]
    if first.reason:
        return f"No endpoint is known to be well; {first.address} would be tried all the same ({first.reason})."
    if len(free) == 1:
        return f"{first.address} has a free slot, and is the only endpoint that could get it."
    return f"{len(free)} endpoints have free slots; {first.address} is the least loaded."


def _queued(target: explain_pb2.TargetExplanation, longest: float, bound: str) -> str:
    seconds = _wait(target)
    wait = "for how long is not known yet" if seconds is None else f"about {seconds:.1f} s"
    before = f"{target.position - 1} of {target.waiting} waiting calls before it"
    words = f"No slot is free: place {target.position} in the queue, {before}; {wait}."
    if seconds is not None and seconds > longest:
        words += f" That is more than the {longest:g} s that the call may wait ({bound}): then QUEUE_FULL."
    return words


def _wait(target: explain_pb2.TargetExplanation) -> float | None:
    return target.wait_time.seconds + target.wait_time.nanos / 1e9 if target.HasField("wait_time") else None


def tenant_in_words(tenant: explain_pb2.TenantExplanation, decision: Decision | None, wish: int | None) -> str:
    """The user that is charged; `wish` is the priority that was asked for, None for none."""
    asked = f" ({wish} was asked for, {tenant.max_priority} is the most)" if wish not in (None, tenant.priority) else ""
    key = f" (key `{tenant.key}`)" if tenant.key else ""
    words = f"`{tenant.user}`{key} has priority {tenant.priority}{asked} and weight {tenant.weight:g}; "
    if decision is None:
        return f"{words}there are no rate limits."
    tier = f" of tier `{tenant.tier}`" if tenant.tier else ""
    if decision.allowed:
        return f"{words}within its rate limits{tier}: {_left(decision)} left after this call."
    again = f"again in {decision.retry_after:.2f} s"
    exceeded = "calls at once" if decision.exceeded == "concurrent" else decision.exceeded
    return f"{words}over its rate limit of {exceeded}{tier}: {_left(decision)} left, {again}."


def _left(decision: Decision) -> str:
    quotas = (("requests", decision.requests), ("tokens", decision.tokens), ("calls at once", decision.concurrent))
    return " and ".join(f"{quota.remaining:,} of {quota.limit:,} {name}" for name, quota in quotas if quota is not None)


def summary(answer: explain_pb2.ExplainResponse) -> Iterator[str]:
    """The explanation in a few lines, the verdict first."""
    yield _headline(answer)
    yield answer.route.reason
    yield answer.tenant.reason
    for target in answer.targets:
        yield f"`{target.backend}`: {target.reason}"
        if target.HasField("discovery"):
            yield f"`{target.backend}`: {_discovered(target.discovery)}"
        out = [endpoint for endpoint in target.endpoints if endpoint.reason and not endpoint.eligible]
        for endpoint in out[:MOST_NAMED]:
            yield f"`{target.backend}`: {endpoint.address} gets nothing now ({endpoint.reason})."
        if len(out) > MOST_NAMED:
            yield f"`{target.backend}`: {len(out) - MOST_NAMED} more endpoints get nothing now."


def _discovered(found: health_pb2.Discovery) -> str:
    words = f"{found.endpoints} endpoints, discovered by {found.source}"
    return f"{words}, where the last look failed: {found.problem}." if found.problem else f"{words}."


def _headline(answer: explain_pb2.ExplainResponse) -> str:
    if answer.error:
        return f"The call would be refused: {word(errors_pb2.ErrorReason, answer.error).upper()}."
    taker = next(target for target in answer.targets if target.verdict == answer.verdict)
    first = answer.targets[0].backend
    why = "" if taker.backend == first else f", a fallback, for `{first}` would refuse it"
    if taker.position:
        seconds = _wait(taker)
        wait = "" if seconds is None else f", about {seconds:.1f} s"
        return f"The call would wait at `{taker.backend}`{why}: place {taker.position} in the queue{wait}."
    if taker.endpoints[0].reason:
        return f"The call would be sent to `{taker.backend}`{why}, and most likely fail there: no endpoint is known to be well."
    return f"The call would be sent at once, to `{taker.backend}`{why}."
