"""What a call costs its buckets: charged before it, settled after it, and the decision whether it may go on."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from lexora_contract.answer import BucketState
from lexora_router.policy.limit_buckets import Buckets
from lexora_router.policy.rate_limits import Part
from lexora_router.policy.token_bucket import TokenBucket

MAX_TOKENS = 1_000_000_000  # of one call; a client may claim any integer
MAX_RETRY_AFTER = 3600.0  # seconds; calls that end early give tokens back, so a longer forecast would be a guess
CONCURRENT_RETRY = 1.0  # seconds; when one of a user's own calls ends is not known here

Dimension = Literal["requests", "tokens", "concurrent"]


class Reservation:
    """A call under way, and the tokens charged for it in advance; to be settled once, on every way out of the call.

    `others` are those of the same call at the tenant's parts.
    """

    __slots__ = ("_buckets", "others", "tokens")

    def __init__(self, buckets: Buckets, tokens: int) -> None:
        self.tokens = tokens
        self.others: tuple[Reservation, ...] = ()
        self._buckets: Buckets | None = buckets
        buckets.begin()

    def settle(self, actual: int | None, now: float) -> None:
        """Charge what was really used; a second time does nothing. None: unknown, what was reserved stands."""
        buckets, self._buckets = self._buckets, None
        if buckets is None:
            return
        buckets.end(now)
        bucket = buckets.tokens
        if bucket is not None and self.tokens:
            used = self.tokens if actual is None else min(max(actual, 0), MAX_TOKENS)
            bucket.settle(self.tokens, used, now)
        for other in self.others:
            other.settle(actual, now)

    def undo(self, now: float) -> None:
        """Give all back, the request too: the call does not go on."""
        buckets = self._buckets
        if buckets is not None:
            self.settle(0, now)
            buckets.requests.settle(1, 0, now)


@dataclass(slots=True)
class Decision:
    """Whether a call may go on; if not, after how many seconds it might, and which dimension stands in the way.

    `tokens` and `concurrent` are None where these are not limited. An allowed call has a `reservation`. With parts each
    bucket is that of them all which has least left, and `part` the one that refuses, None for the tenant itself.
    """

    allowed: bool
    retry_after: float
    requests: BucketState
    tokens: BucketState | None
    concurrent: BucketState | None
    exceeded: Dimension | None
    reservation: Reservation | None
    part: Part | None = None


def charge_all(charged: Sequence[tuple[Part | None, Buckets]], tokens: int, now: float) -> Decision:
    """Charge them all or none; the refusal is that which holds for longest."""
    decisions, refusal = [], None
    for part, buckets in charged:
        decision = charge(buckets, tokens, now)
        decision.part = part
        decisions.append(decision)
        if not decision.allowed and (refusal is None or decision.retry_after > refusal.retry_after):
            refusal = decision
    if refusal is not None:
        for decision in decisions:
            if decision.reservation is not None:
                decision.reservation.undo(now)
        return refusal
    first = decisions[0]
    assert first.reservation is not None
    for other in decisions[1:]:
        assert other.reservation is not None
        first.reservation.others = (*first.reservation.others, other.reservation)
        if other.requests.remaining < first.requests.remaining:
            first.requests = other.requests
        first.tokens = _tighter(first.tokens, other.tokens)
        first.concurrent = _tighter(first.concurrent, other.concurrent)
    return first


def _tighter(one: BucketState | None, other: BucketState | None) -> BucketState | None:
    if one is None or other is None:
        return one or other
    return other if other.remaining < one.remaining else one


def charge(buckets: Buckets, tokens: int, now: float) -> Decision:
    """Charge one request and an estimate of its tokens, both or neither."""
    requests = buckets.requests
    bucket, reserved = reserved_at(buckets, tokens)
    most = buckets.limits.max_concurrent
    exceeded: Dimension = "requests"
    left = requests.balance(now)
    longest = 0.0 if left >= 1 else requests.wait(1, now)
    if bucket is not None and reserved and (wait := bucket.wait(reserved, now)) > longest:
        exceeded, longest = "tokens", wait
    if most is not None and longest < CONCURRENT_RETRY and not buckets.room(most, now):
        exceeded, longest = "concurrent", CONCURRENT_RETRY
    reservation = None
    if not longest:
        left = requests.spend(1)
        if bucket is not None and reserved:
            bucket.take(reserved, now)
        reservation = Reservation(buckets, reserved)
    return Decision(
        not longest,
        min(longest, MAX_RETRY_AFTER) if longest else 0.0,
        requests.state(left, now),
        None if bucket is None else bucket.state(bucket.balance(now), now),
        None if most is None else under_way(buckets, now),
        exceeded if longest else None,
        reservation,
    )


def reserved_at(buckets: Buckets, tokens: int) -> tuple[TokenBucket | None, int]:
    """The bucket of tokens, where these are limited, and what is reserved there for a call that may use so many."""
    bucket = None if buckets.limits.tokens_per_minute is None else buckets.tokens
    return bucket, 0 if bucket is None else int(min(max(tokens, 0), bucket.burst))


def under_way(buckets: Buckets, now: float) -> BucketState | None:
    """Where the user stands in calls under way; None where these are not limited."""
    most = buckets.limits.max_concurrent
    return None if most is None else BucketState(most, buckets.left(most, now), 0.0)
