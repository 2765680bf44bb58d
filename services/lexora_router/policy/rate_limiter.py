"""How much each tenant may ask, and each of its keys and users: requests per second, tokens per minute, calls at once."""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from itertools import islice
from math import floor
from typing import Generic, Literal, TypeVar

from lexora_contract.answer import BucketState
from lexora_router.call import settings_name
from lexora_router.policy.token_bucket import TokenBucket

MAX_TOKENS = 1_000_000_000  # of one call; a client may claim any integer
MAX_RETRY_AFTER = 3600.0  # seconds; calls that end early give tokens back, so a longer forecast would be a guess
MAX_LOOKED_AT = 8  # buckets examined to make room for one new user
CONCURRENT_RETRY = 1.0  # seconds; when one of a user's own calls ends is not known here

Name = TypeVar("Name")
Dimension = Literal["requests", "tokens", "concurrent"]


@dataclass(frozen=True, slots=True)
class RateLimits:
    """What one user may do: `rate` requests per second, `burst` at once; for the other two None is any number."""

    rate: float = 10.0
    burst: int = 20
    tokens_per_minute: int | None = None
    max_concurrent: int | None = None


@dataclass(frozen=True, slots=True)
class LimitRules:
    """Whose limits are whose: a user's own, else those of the tier, else the default."""

    default: RateLimits = RateLimits()
    users: Mapping[str, RateLimits] = field(default_factory=dict)
    tiers: Mapping[str, RateLimits] = field(default_factory=dict)

    def limits(self, user: str, tier: str) -> RateLimits:
        """Return the limits of this user."""
        own = self.users.get(settings_name(user)) if self.users else None
        return own or (self.tiers.get(tier) if tier else None) or self.default


@dataclass(frozen=True, slots=True)
class Part:
    """What has buckets of its own within its tenant's: a key, or one of the users that the tenant's clients name."""

    kind: Literal["key", "user"]
    tenant: str
    name: str
    limits: RateLimits


class _Buckets:
    """The buckets of one user. `open` counts its calls under way: forgetting them would forget what they still owe."""

    __slots__ = ("limits", "open", "requests", "tokens")

    def __init__(self, limits: RateLimits, now: float) -> None:
        self.open = 0
        self.requests = TokenBucket(limits.rate, limits.burst, now)
        self.tokens: TokenBucket | None = None
        self.follow(limits, now)

    def follow(self, limits: RateLimits, now: float) -> None:
        """Take over other limits, after a reload or a change of tier, without a gift."""
        self.limits = limits
        self.requests.adjust(limits.rate, limits.burst, now)
        per_minute = limits.tokens_per_minute
        if per_minute is None:
            return  # the bucket is kept: going back to the limit must not find it full
        if self.tokens is None:
            self.tokens = TokenBucket(per_minute / 60, per_minute, now)
        else:
            self.tokens.adjust(per_minute / 60, per_minute, now)

    def forgettable(self, now: float) -> bool:
        return not self.open and self.requests.full(now) and (self.tokens is None or self.tokens.full(now))


class Reservation:
    """A call under way, and the tokens charged for it in advance; to be settled once, on every way out of the call.

    `others` are those of the same call at the tenant's parts.
    """

    __slots__ = ("_buckets", "others", "tokens")

    def __init__(self, buckets: _Buckets, tokens: int) -> None:
        self.tokens = tokens
        self.others: tuple[Reservation, ...] = ()
        self._buckets: _Buckets | None = buckets
        buckets.open += 1

    def settle(self, actual: int | None, now: float) -> None:
        """Charge what was really used; a second time does nothing. None: unknown, what was reserved stands."""
        buckets, self._buckets = self._buckets, None
        if buckets is None:
            return
        buckets.open -= 1
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


class _Places(OrderedDict[Name, _Buckets], Generic[Name]):
    """Buckets by name, at most `most` pairs, the least recently used first. Raises ValueError when `most` is below 1."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.bound(most)

    def bound(self, most: int) -> None:
        """Hold no more than so many from now on; those that there are stay."""
        if most < 1:
            raise ValueError(f"max_users must be at least 1, not {most}")
        self._most = most

    def find(self, name: Name, limits: RateLimits, now: float) -> _Buckets | None:
        """The buckets of this name, new ones with these limits where there are none; None where there is no room."""
        buckets = self.get(name)
        if buckets is not None:
            self.move_to_end(name)
        elif len(self) < self._most or self._make_room(now):
            buckets = self[name] = _Buckets(limits, now)
        return buckets

    def full(self, now: float) -> bool:
        """Whether `find` would have no room for a new name; changes nothing."""
        if len(self) < self._most:
            return False
        forgettable = sum(deepcopy(each).forgettable(now) for each in islice(self.values(), MAX_LOOKED_AT))
        return len(self) - forgettable >= self._most

    def _make_room(self, now: float) -> bool:
        """Forget full buckets among the least recently used. The others go to the back, so the search moves on next time."""
        for _ in range(MAX_LOOKED_AT):
            name = next(iter(self))
            if not self[name].forgettable(now):
                self.move_to_end(name)
                continue
            del self[name]
            if len(self) < self._most:
                return True
        return False


def _copied(known: _Buckets | None, limits: RateLimits, now: float) -> _Buckets:
    buckets = _Buckets(limits, now) if known is None else deepcopy(known)
    buckets.follow(limits, now)
    return buckets


class RateLimiter:
    """The buckets of all tenants, at most `max_users` pairs, and one more pair that the rest share.

    A bucket that is full is the same as none, so only such ones make room for new tenants, least recently used first. When
    there is none, new ones share the one pair until there is: to forget a bucket that isn't full would grant quota. Keys and
    the users within tenants have places of their own, as many each; where all are taken a key shares as tenants do, and a
    user, whose name is a client's choice, has the buckets of its tenant only. Raises ValueError when `max_users` is below 1.
    """

    def __init__(self, rules: LimitRules, now: float, *, max_users: int = 100_000) -> None:
        self._rules = rules
        self._tenants: _Places[str] = _Places(max_users)
        self._parts: dict[str, _Places[tuple[str, str]]] = {"key": _Places(max_users), "user": _Places(max_users)}
        self._shared = _Buckets(rules.default, now)
        self._shared_keys = _Buckets(rules.default, now)

    def __len__(self) -> int:
        """Tenants with buckets of their own."""
        return len(self._tenants)

    def configure(self, rules: LimitRules, *, max_users: int) -> None:
        """Go on under other rules. Balances stay; each tenant's limits change at its next call."""
        self._tenants.bound(max_users)
        for places in self._parts.values():
            places.bound(max_users)
        self._rules = rules

    def check(self, tenant: str, tokens: int, now: float, *, tier: str = "", parts: Sequence[Part] = ()) -> Decision:
        """Charge one request and an estimate of its tokens, both or neither; 0 tokens: the request alone.

        At most what the bucket holds when full is reserved, whatever a client claims that it may use: more would be a debt
        of all that share the account. What was used above that is charged at the end. `parts` of the tenant are charged the
        same; when one of them all refuses, none is charged.
        """
        own = self._find(tenant, tier, now)
        if not parts:
            return _charge(own, tokens, now)
        found = ((part, self._find_part(part, now)) for part in parts)
        return _charge_all([(None, own), *((part, buckets) for part, buckets in found if buckets is not None)], tokens, now)

    def peek(self, tenant: str, tokens: int, now: float, *, tier: str = "", parts: Sequence[Part] = ()) -> Decision:
        """What `check` would decide now; charges nothing, and makes and forgets no buckets."""
        own = self._copy(tenant, tier, now)
        found = ((part, self._copy_part(part, now)) for part in parts)
        return _charge_all([(None, own), *((part, buckets) for part, buckets in found if buckets is not None)], tokens, now)

    def standing(
        self, tenant: str, now: float, *, tier: str = ""
    ) -> tuple[BucketState, BucketState | None, BucketState | None]:
        """Where a tenant stands in requests and, where they are limited, in tokens and calls under way; nothing is charged."""
        buckets = self._find(tenant, tier, now)
        bucket = None if buckets.limits.tokens_per_minute is None else buckets.tokens
        tokens = None if bucket is None else _quota(bucket, bucket.balance(now))
        return _quota(buckets.requests, buckets.requests.balance(now)), tokens, _under_way(buckets)

    def _find(self, tenant: str, tier: str, now: float) -> _Buckets:
        limits = self._rules.limits(tenant, tier)
        buckets = self._tenants.find(tenant, limits, now)
        if buckets is None:
            buckets, limits = self._shared, self._rules.default
        if buckets.limits is not limits:
            buckets.follow(limits, now)
        return buckets

    def _find_part(self, part: Part, now: float) -> _Buckets | None:
        limits = part.limits
        buckets = self._parts[part.kind].find((part.tenant, part.name), limits, now)
        if buckets is None:
            if part.kind == "user":
                return None
            buckets, limits = self._shared_keys, self._rules.default
        if buckets.limits is not limits:
            buckets.follow(limits, now)
        return buckets

    def _copy(self, tenant: str, tier: str, now: float) -> _Buckets:
        """A copy of what `_find` would find."""
        limits, known = self._rules.limits(tenant, tier), self._tenants.get(tenant)
        if known is None and self._tenants.full(now):
            limits, known = self._rules.default, self._shared
        return _copied(known, limits, now)

    def _copy_part(self, part: Part, now: float) -> _Buckets | None:
        """A copy of what `_find_part` would find."""
        places, limits = self._parts[part.kind], part.limits
        known = places.get((part.tenant, part.name))
        if known is None and places.full(now):
            if part.kind == "user":
                return None
            limits, known = self._rules.default, self._shared_keys
        return _copied(known, limits, now)


def _charge_all(charged: Sequence[tuple[Part | None, _Buckets]], tokens: int, now: float) -> Decision:
    """Charge them all or none; the refusal is that which holds for longest."""
    decisions, refusal = [], None
    for part, buckets in charged:
        decision = _charge(buckets, tokens, now)
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


def _charge(buckets: _Buckets, tokens: int, now: float) -> Decision:
    requests = buckets.requests
    bucket = None if buckets.limits.tokens_per_minute is None else buckets.tokens
    reserved = 0 if bucket is None else int(min(max(tokens, 0), bucket.burst))
    most = buckets.limits.max_concurrent
    exceeded: Dimension = "requests"
    left = requests.balance(now)
    longest = 0.0 if left >= 1 else requests.wait(1, now)
    if bucket is not None and reserved and (wait := bucket.wait(reserved, now)) > longest:
        exceeded, longest = "tokens", wait
    if most is not None and buckets.open >= most and longest < CONCURRENT_RETRY:
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
        _quota(requests, left),
        None if bucket is None else _quota(bucket, bucket.balance(now)),
        None if most is None else _under_way(buckets),
        exceeded if longest else None,
        reservation,
    )


def _under_way(buckets: _Buckets) -> BucketState | None:
    most = buckets.limits.max_concurrent
    return None if most is None else BucketState(most, max(0, most - buckets.open), 0.0)


def _quota(bucket: TokenBucket, balance: float) -> BucketState:
    return BucketState(int(bucket.burst), floor(balance) if balance > 0 else 0, (bucket.burst - balance) / bucket.rate)
