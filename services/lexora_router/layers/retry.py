"""The one owner of attempts."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from lexora_router.errors import (
    UpstreamBroken,
    UpstreamFailure,
    UpstreamInvalid,
    UpstreamRefused,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from lexora_router.handler import Call, Commit, Emit, Handler
from lexora_router.policy.backoff import Backoff
from lexora_router.policy.retry_after import parse
from lexora_router.policy.retry_budget import RetryBudget

RETRYABLE_STATUS = frozenset({429, 502, 503, 504})


@dataclass(frozen=True, slots=True)
class RetrySettings:
    """`retry` of the configuration; durations in seconds."""

    max_retries: int
    backoff: Backoff
    respect_retry_after: bool
    max_retry_after: float


class Retry:
    """Tries again while the client has seen nothing, the failure may pass, and deadline and budget allow it.

    Another endpoint of the pool is tried at once; the same one only after a delay with full jitter, or after what the engine
    asked for. Each backend has a budget of its own: calls of one that is well pay for no retries of one that is not.
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

    async def __call__(self, call: Call, emit: Emit) -> None:
        """Try until it works or must not be tried again; raises the last attempt's error."""
        assert call.target is not None
        commit, budget = Commit(emit), self._budgets[call.target.backend]
        budget.deposit(self._clock())
        for retries in range(self._settings.max_retries + 1):
            try:
                await self._inner(call, commit)
                return
            except UpstreamFailure as failure:
                if commit.done or retries == self._settings.max_retries or not may_pass(failure):
                    raise
                wait = self._wait(call, failure, retries)
                if wait is None or not budget.withdraw(self._clock()):
                    raise
                if wait:
                    assert call.lease is not None
                    call.lease.pause()
                    await asyncio.sleep(wait)

    def _wait(self, call: Call, failure: UpstreamFailure, retries: int) -> float | None:
        """Seconds until the next attempt; None when there must be none."""
        settings = self._settings
        if call.lease is not None and call.lease.has_untried():
            return 0.0
        wait = settings.backoff.delay(retries, self._jitter())
        hint = hint_of(failure) if settings.respect_retry_after else None
        asked = parse(hint, self._wall_clock()) if hint else None
        if asked is not None:
            if asked > settings.max_retry_after:
                return None
            wait = max(wait, asked)
        if call.deadline is not None and self._clock() + wait >= call.deadline:
            return None
        return wait


def may_pass(failure: UpstreamFailure) -> bool:
    """Whether the same call may succeed when tried again."""
    match failure:
        case UpstreamRefused() | UpstreamInvalid():
            return failure.http_status in RETRYABLE_STATUS
        case UpstreamTimeout():
            return failure.phase == "first token"
        case UpstreamUnreachable() | UpstreamBroken():
            return True
    return False


def hint_of(failure: UpstreamFailure) -> str | None:
    """The engine's Retry-After."""
    return failure.retry_after if isinstance(failure, UpstreamRefused | UpstreamInvalid) else None
