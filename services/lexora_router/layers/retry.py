"""The one owner of attempts."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import inf

from lexora_contract.port import Sink
from lexora_router.call import Call, Handler
from lexora_router.errors import UpstreamFailure
from lexora_router.payload.retry_after import parse
from lexora_router.policy.backoff import Backoff
from lexora_router.policy.failures import Kind, RetryScope, hint_of, kind_of, verdict_of
from lexora_router.policy.retry_budget import RetryBudget

# An address that takes no connection is gone for longer than backoffs are. One short wait covers a listener that is replaced.
SHORT_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class RetrySettings:
    """`retry` of the configuration; durations in seconds."""

    max_retries: int
    backoff: Backoff
    respect_retry_after: bool
    max_retry_after: float
    on_timeout: bool = False  # whole answers that were not there in time are asked for again


class Retry:
    """Tries again while the client has seen nothing, the failure may pass, and deadline and budget allow it.

    Another endpoint of the pool is tried as soon as it has a slot; the same one only after a delay with full jitter, or after
    what the engine asked for, and not at all after an error of its own making. Each backend has a budget of its own: calls of
    one that is well pay for no retries of one that is not. The first retry at an endpoint that is well may overdraw it: else a
    dead engine's calls would be lost beside one that has room for them.
    """

    def __init__(
        self,
        inner: Handler,
        *,
        settings: RetrySettings,
        budgets: Mapping[str, RetryBudget],
        clock: Callable[[], float],
        wall_clock: Callable[[], float],
        jitter: Callable[[], float],
    ) -> None:
        self._inner = inner
        self._settings = settings
        self._budgets = budgets
        self._clock = clock
        self._wall_clock = wall_clock
        self._jitter = jitter

    async def __call__(self, call: Call, sink: Sink) -> None:
        """Try until it works or must not be tried again; raises the last attempt's error."""
        assert call.target is not None
        self._budgets[call.target.backend].deposit(self._clock())
        for retries in range(self._settings.max_retries + 1):
            try:
                await self._inner(call, sink)
                return
            except UpstreamFailure as failure:
                scope = verdict_of(failure).retry
                if call.begun or retries == self._settings.max_retries or scope is RetryScope.NEVER:
                    raise
                if kind_of(failure) is Kind.NO_FIRST_TOKEN and not (call.stream or self._settings.on_timeout):
                    raise  # a whole answer: its engine may have been near the end, and another one would begin anew
                if not await self._goes_again(call, failure, retries):
                    raise

    async def _goes_again(self, call: Call, failure: UpstreamFailure, retries: int) -> bool:
        """Wait as long as the next attempt must; False when there must be none."""
        lease, target = call.lease, call.target
        assert lease is not None
        assert target is not None
        if not lease.may_go_on():
            return False
        untried, wait = lease.has_untried(), self._wait(call, failure, retries)
        if not untried and wait == inf:
            return False
        saved = retries == 0 and lease.has_sound()
        if not self._budgets[target.backend].withdraw(self._clock(), overdraw=saved):
            return False
        lease.rest(wait if untried else 0.0)
        if wait and not untried:
            lease.pause()
            await asyncio.sleep(wait)
        return True

    def _wait(self, call: Call, failure: UpstreamFailure, retries: int) -> float:
        """Seconds until an endpoint that was tried may be tried again; inf when it must not."""
        settings, scope = self._settings, verdict_of(failure).retry
        if scope is RetryScope.SHORTLY and retries == 0 and not call.elsewhere:
            return SHORT_SECONDS
        if scope not in (RetryScope.ANYWHERE, RetryScope.FREELY):
            return inf
        wait = settings.backoff.delay(retries, self._jitter())
        hint = hint_of(failure) if settings.respect_retry_after else None
        asked = parse(hint, self._wall_clock()) if hint else None
        if asked is not None:
            if asked > settings.max_retry_after:
                return inf
            wait = max(wait, asked)
        if call.deadline is not None and self._clock() + wait >= call.deadline:
            return inf
        return wait
