"""What a tenant may ask per second and per minute."""

from collections.abc import Callable

from lexora_router.errors import RateLimited, RouterError
from lexora_router.handler import BucketState, Call, Emit, Handler, RateLimitState
from lexora_router.policy.rate_limiter import Decision, Quota, RateLimiter


class RateLimit:
    """Refuses calls over the limit; reserves an estimate of tokens at entry and settles with what was really used."""

    def __init__(
        self,
        inner: Handler,
        *,
        limiter: RateLimiter,
        tier: Callable[[str], str],
        estimate: Callable[[Call], int],
        clock: Callable[[], float],
    ) -> None:
        self._inner = inner
        self._limiter = limiter
        self._tier = tier
        self._estimate = estimate
        self._clock = clock

    async def __call__(self, call: Call, emit: Emit) -> None:
        """Serve the call if it is within the limits."""
        tenant = call.tenant
        decision = self._limiter.check(tenant, self._estimate(call), self._clock(), tier=self._tier(tenant))
        call.receipt.rate_limit = _state(decision)
        if not decision.allowed:
            raise _refusal(tenant, decision)
        refused = False
        try:
            await self._inner(call, emit)
        except RouterError:
            refused = True
            raise
        finally:
            if decision.reservation is not None:
                decision.reservation.settle(_used(call, refused=refused), self._clock())


def _used(call: Call, *, refused: bool) -> int | None:
    """Tokens that the call has cost; None: nobody knows. What no engine took on costs nothing."""
    receipt = call.receipt
    if receipt.usage is not None:
        return receipt.usage.input_tokens + receipt.usage.output_tokens
    begun = receipt.first_event_at or (receipt.dispatched_at and not refused)
    return None if begun else 0


def _refusal(tenant: str, decision: Decision) -> RateLimited:
    quota = decision.tokens if decision.exceeded == "tokens" and decision.tokens is not None else decision.requests
    per = "minute" if decision.exceeded == "tokens" else "burst"
    message = (
        f"Rate limit of {quota.limit} {decision.exceeded} per {per} is used up for `{tenant}`; "
        f"try again in {decision.retry_after:.2f} s."
    )
    return RateLimited(message, decision.retry_after, f"user:{tenant}")


def _state(decision: Decision) -> RateLimitState:
    return RateLimitState(_bucket(decision.requests), _bucket(decision.tokens))


def _bucket(quota: Quota | None) -> BucketState | None:
    return None if quota is None else BucketState(quota.limit, quota.remaining, quota.reset)
