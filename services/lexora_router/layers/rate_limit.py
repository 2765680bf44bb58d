"""What a tenant may ask per second and per minute."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from lexora_contract.answer import RateLimitState
from lexora_contract.port import Sink
from lexora_router.call import Call, Handler
from lexora_router.errors import RateLimited, RouterError
from lexora_router.policy.limit_buckets import Buckets
from lexora_router.policy.rate_charge import Decision, Reservation
from lexora_router.policy.rate_limiter import RateLimiter
from lexora_router.policy.rate_limits import Part


@dataclass(frozen=True, slots=True)
class Meter:
    """Charges the tenants of calls, and writes into the receipts where they stand.

    `tier` of a tenant by its name; tokens that a call takes in, and those that it may use in all, None where no tokens are
    limited; `clock` is monotonic, in seconds. `parts`: what of the call's tenant is charged beside it; None where callers are
    not known by credentials.
    """

    limiter: RateLimiter
    tier: Callable[[str], str]
    input_estimate: Callable[[Call], int]
    total_estimate: Callable[[Call], int] | None
    clock: Callable[[], float]
    parts: Callable[[Call], Sequence[Part]] | None = None
    every: bool = True  # any tenant may be limited in tokens; else only some parts of tenants are

    def admit(self, call: Call, tokens: int | None = None) -> Reservation:
        """Charge a request and the tokens that it may use; it is under way until this is settled. Raises RateLimited."""
        tenant = call.tenant
        parts = () if self.parts is None else self.parts(call)
        if tokens is None:
            tokens = self._tokens(call, parts)
        decision = self.limiter.check(tenant, tokens, self.clock(), tier=self.tier(tenant), parts=parts)
        call.receipt.rate_limit = RateLimitState(decision.requests, decision.tokens, decision.concurrent)
        if decision.reservation is None:
            raise _refusal(tenant, decision)
        return decision.reservation

    def count(self, call: Call) -> None:
        """Charge a request that is refused before anything is done for it: no tokens. Raises RateLimited."""
        self.admit(call, 0).settle(0, self.clock())

    def forecast(self, call: Call, tokens: int) -> Decision:
        """What would be decided of a call that may use so many tokens; charge nothing."""
        tenant = call.tenant
        return self.limiter.peek(tenant, tokens, self.clock(), tier=self.tier(tenant), parts=self._parts(call))

    def foresee(self, call: Call) -> None:
        """Raise RateLimited when a call of this tenant would be refused now, whatever it asks; charge nothing."""
        decision = self.forecast(call, 0)
        if not decision.allowed:
            raise _refusal(call.tenant, decision)

    def show(self, call: Call) -> None:
        """Charge nothing."""
        tenant = call.tenant
        call.receipt.rate_limit = RateLimitState(*self.limiter.standing(tenant, self.clock(), tier=self.tier(tenant)))

    def _tokens(self, call: Call, parts: Sequence[Part]) -> int:
        """The tokens that a call may use, where one of its limits needs them."""
        if self.total_estimate is None:
            return 0
        needed = self.every or any(part.limits.tokens_per_minute for part in parts)
        return self.total_estimate(call) if needed else 0

    def _parts(self, call: Call) -> Sequence[Part]:
        return () if self.parts is None else self.parts(call)


class Lender(Protocol):
    """Gets for calls what their buckets do not hold here."""

    def within_reach(self, charged: Sequence[Buckets], tokens: int, now: float) -> bool:
        """Whether a refused call that may use so many tokens may go on after `obtain`."""
        ...

    async def obtain(self, charged: Sequence[Buckets], tokens: int) -> None:
        """Ask for what it needs, and wait for the answer, a bounded time."""

    def lend(self, charged: Sequence[Buckets], tokens: int) -> None:
        """Charge it, and have it paid by the next answer."""


@dataclass(frozen=True, slots=True)
class SharedMeter(Meter):
    """Charges buckets that are leased from a store; what a call does not find here the store may have."""

    lender: Lender = field(kw_only=True)

    async def obtain(self, call: Call, refusal: RateLimited) -> Reservation:
        """Charge a call that `admit` has refused, with what the store has. Raises RateLimited.

        Waits for one exchange with the store, and for one more where what was granted went to a call that came later.
        """
        for _ in range(2):
            charged, tokens = self._charged(call), self._tokens(call, self._parts(call))
            if not self.lender.within_reach(charged, tokens, self.clock()):
                break
            await self.lender.obtain(charged, tokens)
            try:
                return self.admit(call)
            except RateLimited as again:
                refusal = again
        raise refusal

    def count(self, call: Call) -> None:
        """Charge a request that is refused before anything is done for it, as a debt where the store may have it."""
        try:
            Meter.count(self, call)
        except RateLimited:
            charged = self._charged(call)
            if not self.lender.within_reach(charged, 0, self.clock()):
                raise
            self.lender.lend(charged, 0)

    def _charged(self, call: Call) -> list[Buckets]:
        found = self.limiter.charged(call.tenant, self.clock(), tier=self.tier(call.tenant), parts=self._parts(call))
        return [buckets for _, buckets in found]


class RateLimit:
    """Refuses calls over the limit; reserves an estimate of tokens at entry and settles with what was really used."""

    def __init__(self, inner: Handler, *, meter: Meter) -> None:
        self._inner = inner
        self._meter = meter

    def __call__(self, call: Call, sink: Sink) -> Awaitable[None]:
        """Serve the call if it is within the limits."""
        return self._serve(self._meter.admit(call), call, sink)

    async def _serve(self, reservation: Reservation, call: Call, sink: Sink) -> None:
        whole = refused = False
        try:
            await self._inner(call, sink)
            whole = True
        except RouterError:
            refused = True
            raise
        finally:
            used = None
            try:
                if reservation.tokens or reservation.others:
                    used = self._used(call, whole=whole, refused=refused)
            finally:
                reservation.settle(used, self._meter.clock())

    def _used(self, call: Call, *, whole: bool, refused: bool) -> int | None:
        """Tokens that the call has cost, each attempt that was not done in time the estimate; None: unknown."""
        used, late = self._answered(call, whole=whole, refused=refused), call.receipt.late_attempts
        if not late or self._meter.total_estimate is None:
            return used
        each = self._meter.total_estimate(call)
        return late * each + (each if used is None else used)

    def _answered(self, call: Call, *, whole: bool, refused: bool) -> int | None:
        """Tokens of the last attempt; None: unknown. What no engine took on costs nothing."""
        receipt = call.receipt
        usage = receipt.usage
        if usage is not None:
            # An engine that was interrupted has counted up to its last word on usage, which may be its first.
            output = usage.output_tokens if whole else max(usage.output_tokens, receipt.events)
            return usage.input_tokens + output
        if not (receipt.first_event_at or receipt.events or (receipt.dispatched_at and not refused)):
            return 0
        # Of a whole answer that was not counted an event may be many tokens; of an interrupted one these are surely spent.
        return None if whole or not call.stream else self._meter.input_estimate(call) + receipt.events


class SharedRateLimit(RateLimit):
    """The same over limits that replicas share: a call that finds nothing left here waits for one exchange with the store."""

    def __init__(self, inner: Handler, *, meter: SharedMeter) -> None:
        super().__init__(inner, meter=meter)
        self._shared = meter

    def __call__(self, call: Call, sink: Sink) -> Awaitable[None]:
        """Serve the call if it is within the limits."""
        try:
            reservation = self._meter.admit(call)
        except RateLimited as refusal:
            return self._obtain(refusal, call, sink)
        return self._serve(reservation, call, sink)

    async def _obtain(self, refusal: RateLimited, call: Call, sink: Sink) -> None:
        await self._serve(await self._shared.obtain(call, refusal), call, sink)


def _refusal(tenant: str, decision: Decision) -> RateLimited:
    match decision.exceeded:
        case "tokens":
            assert decision.tokens is not None
            what = f"tokens: {decision.tokens.limit} per minute"
        case "concurrent":
            assert decision.concurrent is not None
            what = f"calls under way: {decision.concurrent.limit} at once"
        case _:
            what = f"requests: {decision.requests.limit} at once"
    whose, subject = f"`{tenant}`", f"user:{tenant}"
    match decision.part:
        case Part("key", _, name):
            whose, subject = f"key `{name}` of `{tenant}`", f"key:{name}"
        case Part("user", _, name):
            whose, subject = f"`{tenant}/{name}`", f"user:{tenant}/{name}"
    message = f"The rate limit of {whose} is used up ({what}); try again in {decision.retry_after:.2f} s."
    return RateLimited(message, decision.retry_after, subject)
