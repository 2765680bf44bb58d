"""The whole policy, in the order a call meets it, composed in one place."""

import random
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

from lexora_router.call import Call, Handler, compose
from lexora_router.layers.admission import Admission, Pool
from lexora_router.layers.authorize import Authorization, Authorize
from lexora_router.layers.balance import Balance, attempt
from lexora_router.layers.deadline import Deadline
from lexora_router.layers.fallback import Fallback
from lexora_router.layers.observe import Observe, Recorder
from lexora_router.layers.rate_limit import Meter, RateLimit, SharedMeter, SharedRateLimit
from lexora_router.layers.resend import Resend
from lexora_router.layers.resolve import Resolve, Routes
from lexora_router.layers.resume import Resume
from lexora_router.layers.retry import Retry, RetrySettings
from lexora_router.layers.served_operations import Refusal, ServedOperations
from lexora_router.layers.stored_responses import AskHome, NoteHome, OwnResponses, Places
from lexora_router.layers.timeouts import EngineTimeouts, Gaps, unrecorded
from lexora_router.layers.trace import TraceAttempt, TraceQueue
from lexora_router.policy.response_homes import ResponseHomes
from lexora_router.policy.retry_budget import RetryBudget
from lexora_router.resume.eligibility import ResumeSource


@dataclass(frozen=True, slots=True)
class Parts:
    """What the layers are made of. `clock` is monotonic, in seconds. None leaves a layer out."""

    routes: Routes
    recorders: tuple[Recorder, ...]
    pools: Mapping[str, Pool]
    retry: RetrySettings
    budgets: Mapping[str, RetryBudget]  # by backend
    meter: Meter | None
    fallback_on_rate_limit: bool | None
    clock: Callable[[], float]
    homes: ResponseHomes = field(default_factory=ResponseHomes)
    resumable: Mapping[str, ResumeSource] | None = None  # by pool
    refusal: Refusal | None = None  # None: every backend serves every operation
    gaps: Gaps = unrecorded
    authorization: Authorization | None = None  # where credentials are asked for
    traced: bool = False  # a recorder among `recorders` gives calls their tracing
    auto: Callable[[Call], Awaitable[None]] | None = None  # names the model for `auto`


def build(parts: Parts) -> Handler:
    """The handler of every call."""
    clock, meter, on_rate_limit, refusal = parts.clock, parts.meter, parts.fallback_on_rate_limit, parts.refusal
    authorization = parts.authorization
    retry = partial(Retry, settings=parts.retry, budgets=parts.budgets, clock=clock, wall_clock=time.time, jitter=random.random)
    layers: tuple[Callable[[Handler], Handler] | None, ...] = (
        partial(Observe, recorders=parts.recorders, clock=clock),  # outermost: sees every outcome
        Deadline,  # above everything that waits
        _rate_limit(meter),  # above everything that costs, a guess at a model too
        # Above all that a refused call must not cost or learn.
        None if authorization is None else partial(Authorize, authorization=authorization),
        None if authorization is None else partial(OwnResponses, homes=parts.homes, clock=clock),  # as above
        partial(Resolve, routes=parts.routes, auto=parts.auto),  # model -> targets, before anything that depends on them
        None if on_rate_limit is None else partial(Fallback, on_rate_limit=on_rate_limit),  # above admission: own queues
        None if refusal is None else partial(ServedOperations, refusal=refusal),  # below fallback, above all that waits
        TraceQueue if parts.traced else None,  # above admission: a wait begins there
        partial(Admission, pools=parts.pools),  # above retry: a retried call keeps its place
        None if not parts.resumable else partial(Resume, sources=parts.resumable),  # above retry: it has attempts of its own
        retry if parts.retry.max_retries else None,  # the one owner of attempts; never after the first byte
        Resend,  # below retry: a connection that closes as it is used costs no retry
        TraceAttempt if parts.traced else None,  # one span per attempt
        partial(Balance, clock=clock),  # picks an endpoint, and reports how the attempt went
        partial(NoteHome, homes=parts.homes, clock=clock),  # below balance: where the attempt is
        partial(EngineTimeouts, clock=clock, gaps=parts.gaps),  # below retry: silence costs one attempt, not the call
    )
    return compose(*(layer for layer in layers if layer is not None), around=attempt)


def around(parts: Parts) -> Callable[[Handler], Handler]:
    """What surrounds an answer that the router gives itself: it is seen, timed and limited like any other call."""
    clock, meter, authorization = parts.clock, parts.meter, parts.authorization
    layers: tuple[Callable[[Handler], Handler] | None, ...] = (
        partial(Observe, recorders=parts.recorders, clock=clock),
        Deadline,
        _rate_limit(meter),
        None if authorization is None else partial(Authorize, authorization=authorization, models=False),
    )
    return lambda inner: compose(*(layer for layer in layers if layer is not None), around=inner)


def stored(parts: Parts, places: Places) -> Handler:
    """The handler of calls for stored responses: no queue and no choice, since one endpoint has what is asked."""
    ask = AskHome(EngineTimeouts(attempt, clock=parts.clock), homes=parts.homes, places=places, clock=parts.clock)
    return around(parts)(ask)


def _rate_limit(meter: Meter | None) -> Callable[[Handler], Handler] | None:
    if isinstance(meter, SharedMeter):
        return partial(SharedRateLimit, meter=meter)
    return None if meter is None else partial(RateLimit, meter=meter)
