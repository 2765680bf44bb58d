"""How much each user may ask: requests per second, tokens per minute, and calls under way at once."""

from collections import OrderedDict
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from itertools import islice
from math import floor
from typing import Literal

from lexora_contract.answer import BucketState
from lexora_router.call import settings_name
from lexora_router.policy.token_bucket import TokenBucket

MAX_TOKENS = 1_000_000_000  # of one call; a client may claim any integer
MAX_RETRY_AFTER = 3600.0  # seconds; calls that end early give tokens back, so a longer forecast would be a guess
MAX_LOOKED_AT = 8  # buckets examined to make room for one new user
CONCURRENT_RETRY = 1.0  # seconds; when one of a user's own calls ends is not known here

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
    """A call under way, and the tokens charged for it in advance; to be settled once, on every way out of the call."""

    __slots__ = ("_buckets", "tokens")

    def __init__(self, buckets: _Buckets, tokens: int) -> None:
        self.tokens = tokens
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


@dataclass(slots=True)
class Decision:
    """Whether a call may go on; if not, after how many seconds it might, and which dimension stands in the way.

    `tokens` and `concurrent` are None where these are not limited. An allowed call has a `reservation`.
    """

    allowed: bool
    retry_after: float
    requests: BucketState
    tokens: BucketState | None
    concurrent: BucketState | None
    exceeded: Dimension | None
    reservation: Reservation | None


class RateLimiter:
    """The buckets of all users, at most `max_users` pairs, and one more pair that the rest share.

    A bucket that is full is the same as none, so only such ones make room for new users, least recently used first. When
    there is none, new users share the one pair until there is: to forget a bucket that isn't full would grant quota.
    Raises ValueError when `max_users` is below 1.
    """

    def __init__(self, rules: LimitRules, now: float, *, max_users: int = 100_000) -> None:
        if max_users < 1:
            raise ValueError(f"max_users must be at least 1, not {max_users}")
        self._rules = rules
        self._max_users = max_users
        self._users: OrderedDict[str, _Buckets] = OrderedDict()
        self._shared = _Buckets(rules.default, now)

    def __len__(self) -> int:
        """Users with buckets of their own."""
        return len(self._users)

    def configure(self, rules: LimitRules, *, max_users: int) -> None:
        """Go on under other rules. Balances stay; each user's limits change at its next call."""
        if max_users < 1:
            raise ValueError(f"max_users must be at least 1, not {max_users}")
        self._rules = rules
        self._max_users = max_users

    def check(self, user: str, tokens: int, now: float, *, tier: str = "") -> Decision:
        """Charge one request and an estimate of its tokens, both or neither; 0 tokens: the request alone.

        At most what the bucket holds when full is reserved, whatever a client claims that it may use: more would be a debt
        of all that share the account. What was used above that is charged at the end.
        """
        return _charge(self._find(user, tier, now), tokens, now)

    def peek(self, user: str, tokens: int, now: float, *, tier: str = "") -> Decision:
        """What `check` would decide now; charges nothing, and makes and forgets no buckets."""
        return _charge(self._copy(user, tier, now), tokens, now)

    def standing(self, user: str, now: float, *, tier: str = "") -> tuple[BucketState, BucketState | None, BucketState | None]:
        """Where a user stands in requests and, where they are limited, in tokens and calls under way; nothing is charged."""
        buckets = self._find(user, tier, now)
        bucket = None if buckets.limits.tokens_per_minute is None else buckets.tokens
        tokens = None if bucket is None else _quota(bucket, bucket.balance(now))
        return _quota(buckets.requests, buckets.requests.balance(now)), tokens, _under_way(buckets)

    def _find(self, user: str, tier: str, now: float) -> _Buckets:
        limits = self._rules.limits(user, tier)
        buckets = self._users.get(user)
        if buckets is not None:
            self._users.move_to_end(user)
        elif len(self._users) < self._max_users or self._make_room(now):
            buckets = self._users[user] = _Buckets(limits, now)
        else:
            buckets, limits = self._shared, self._rules.default
        if buckets.limits is not limits:
            buckets.follow(limits, now)
        return buckets

    def _copy(self, user: str, tier: str, now: float) -> _Buckets:
        """A copy of what `_find` would find."""
        limits, known = self._rules.limits(user, tier), self._users.get(user)
        if known is None and len(self._users) >= self._max_users:
            looked_at = islice(self._users.values(), MAX_LOOKED_AT)
            forgettable = sum(deepcopy(each).forgettable(now) for each in looked_at)
            if len(self._users) - forgettable >= self._max_users:
                limits, known = self._rules.default, self._shared
        buckets = _Buckets(limits, now) if known is None else deepcopy(known)
        buckets.follow(limits, now)
        return buckets

    def _make_room(self, now: float) -> bool:
        """Forget full buckets among the least recently used. The others go to the back, so the search moves on next time."""
        users = self._users
        for _ in range(MAX_LOOKED_AT):
            user = next(iter(users))
            if not users[user].forgettable(now):
                users.move_to_end(user)
                continue
            del users[user]
            if len(users) < self._max_users:
                return True
        return False


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
        left = requests.spend(1, now)
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
