"""The buckets of one user, and those of many within a bound."""

from collections import OrderedDict
from collections.abc import Callable
from itertools import islice
from typing import Generic, TypeVar

from lexora_router.policy.rate_limits import RateLimits
from lexora_router.policy.token_bucket import TokenBucket

MAX_LOOKED_AT = 8  # buckets examined to make room for one new user

Name = TypeVar("Name")


class Buckets:
    """The buckets of one user. `open` counts its calls under way: forgetting them would forget what they still owe."""

    __slots__ = ("limits", "open", "requests", "tokens")

    def __init__(self, limits: RateLimits, now: float) -> None:
        self.open = 0
        self.requests = self.make("requests", limits.rate, limits.burst, now)
        self.tokens: TokenBucket | None = None
        self.follow(limits, now)

    def make(self, dimension: str, rate: float, burst: float, now: float) -> TokenBucket:
        """The bucket for one dimension."""
        return TokenBucket(rate, burst, now)

    def begin(self) -> None:
        """A call is under way."""
        self.open += 1

    def end(self, now: float) -> None:
        """One is not any more."""
        self.open -= 1

    def room(self, most: int, now: float) -> bool:
        """Whether one more call may be under way, where `most` may."""
        return self.open < most

    def left(self, most: int, now: float) -> int:
        """How many more calls may be under way."""
        return max(0, most - self.open)

    def follow(self, limits: RateLimits, now: float) -> None:
        """Take over other limits, after a reload or a change of tier, without a gift."""
        self.limits = limits
        self.requests.adjust(limits.rate, limits.burst, now)
        per_minute = limits.tokens_per_minute
        if per_minute is None:
            return  # the bucket is kept: going back to the limit must not find it full
        if self.tokens is None:
            self.tokens = self.make("tokens", per_minute / 60, per_minute, now)
        else:
            self.tokens.adjust(per_minute / 60, per_minute, now)

    def forgettable(self, now: float) -> bool:
        """Whether they are the same as none."""
        return not self.open and self.requests.full(now) and (self.tokens is None or self.tokens.full(now))

    def seen(self, now: float) -> "Buckets":
        """Buckets of their own that stand where these do."""
        buckets = Buckets(self.limits, now)
        buckets.open = self.open
        buckets.requests = self.requests.seen(now)
        buckets.tokens = None if self.tokens is None else self.tokens.seen(now)
        return buckets


class BoundedBuckets(OrderedDict[Name, Buckets], Generic[Name]):
    """Buckets by name, at most `most` pairs, the least recently used first. Raises ValueError when `most` is below 1."""

    def __init__(self, most: int, make: Callable[[Name, RateLimits, float], Buckets]) -> None:
        super().__init__()
        self._make = make
        self.bound(most)

    def bound(self, most: int) -> None:
        """Hold no more than so many from now on; those that there are stay."""
        if most < 1:
            raise ValueError(f"max_users must be at least 1, not {most}")
        self._most = most

    def find(self, name: Name, limits: RateLimits, now: float) -> Buckets | None:
        """The buckets of this name, new ones with these limits where there are none; None where there is no room."""
        buckets = self.get(name)
        if buckets is not None:
            self.move_to_end(name)
        elif len(self) < self._most or self._make_room(now):
            buckets = self[name] = self._make(name, limits, now)
        return buckets

    def full(self, now: float) -> bool:
        """Whether `find` would have no room for a new name; changes nothing."""
        if len(self) < self._most:
            return False
        forgettable = sum(each.forgettable(now) for each in islice(self.values(), MAX_LOOKED_AT))
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


def copied(known: Buckets | None, limits: RateLimits, now: float) -> Buckets:
    """A copy under these limits; of none, new ones."""
    buckets = Buckets(limits, now) if known is None else known.seen(now)
    buckets.follow(limits, now)
    return buckets
