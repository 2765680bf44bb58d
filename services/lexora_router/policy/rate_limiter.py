"""How much each tenant may ask, and each of its keys and users: requests per second, tokens per minute, calls at once."""

from collections.abc import Callable, Iterator, Sequence

from lexora_contract.answer import BucketState
from lexora_router.policy.limit_buckets import BoundedBuckets, Buckets, copied
from lexora_router.policy.rate_charge import Decision, charge, charge_all, under_way
from lexora_router.policy.rate_limits import LimitRules, Part, RateLimits

Make = Callable[[tuple[str, ...], RateLimits, float], Buckets]


def plain(name: tuple[str, ...], limits: RateLimits, now: float) -> Buckets:
    """Buckets that are this process' own."""
    return Buckets(limits, now)


class RateLimiter:
    """The buckets of all tenants, at most `max_users` pairs, and one more pair that the rest share.

    A bucket that is full is the same as none, so only such ones make room for new tenants, least recently used first. When
    there is none, new ones share the one pair until there is: to forget a bucket that isn't full would grant quota. Keys and
    the users within tenants have places of their own, as many each; where all are taken a key shares as tenants do, and a
    user, whose name is a client's choice, has the buckets of its tenant only. `make` makes the buckets of a name. Raises
    ValueError when `max_users` is below 1.
    """

    def __init__(self, rules: LimitRules, now: float, *, max_users: int = 100_000, make: Make = plain) -> None:
        def made(kind: str) -> Callable[[tuple[str, ...], RateLimits, float], Buckets]:
            return lambda name, limits, now: make((kind, *name), limits, now)

        self._rules = rules
        self._tenants = BoundedBuckets[str](max_users, lambda name, limits, now: make(("tenant", name), limits, now))
        self._parts = {kind: BoundedBuckets[tuple[str, str]](max_users, made(kind)) for kind in ("key", "user")}
        self._shared = make(("tenants",), rules.default, now)
        self._shared_keys = make(("keys",), rules.default, now)

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
        if not parts:
            return charge(self._find(tenant, tier, now), tokens, now)
        return charge_all(list(self.charged(tenant, now, tier=tier, parts=parts)), tokens, now)

    def charged(
        self, tenant: str, now: float, *, tier: str = "", parts: Sequence[Part] = ()
    ) -> Iterator[tuple[Part | None, Buckets]]:
        """What `check` charges: the buckets of the tenant, and those of its parts."""
        yield None, self._find(tenant, tier, now)
        for part in parts:
            buckets = self._find_part(part, now)
            if buckets is not None:
                yield part, buckets

    def peek(self, tenant: str, tokens: int, now: float, *, tier: str = "", parts: Sequence[Part] = ()) -> Decision:
        """What `check` would decide now; charges nothing, and makes and forgets no buckets."""
        own = self._copy(tenant, tier, now)
        found = ((part, self._copy_part(part, now)) for part in parts)
        return charge_all([(None, own), *((part, buckets) for part, buckets in found if buckets is not None)], tokens, now)

    def standing(
        self, tenant: str, now: float, *, tier: str = ""
    ) -> tuple[BucketState, BucketState | None, BucketState | None]:
        """Where a tenant stands in requests and, where they are limited, in tokens and calls under way; nothing is charged."""
        buckets = self._find(tenant, tier, now)
        bucket = None if buckets.limits.tokens_per_minute is None else buckets.tokens
        tokens = None if bucket is None else bucket.state(bucket.balance(now), now)
        return buckets.requests.state(buckets.requests.balance(now), now), tokens, under_way(buckets, now)

    def _find(self, tenant: str, tier: str, now: float) -> Buckets:
        limits = self._rules.limits(tenant, tier)
        buckets = self._tenants.find(tenant, limits, now)
        if buckets is None:
            buckets, limits = self._shared, self._rules.default
        if buckets.limits is not limits:
            buckets.follow(limits, now)
        return buckets

    def _find_part(self, part: Part, now: float) -> Buckets | None:
        limits = part.limits
        buckets = self._parts[part.kind].find((part.tenant, part.name), limits, now)
        if buckets is None:
            if part.kind == "user":
                return None
            buckets, limits = self._shared_keys, self._rules.default
        if buckets.limits is not limits:
            buckets.follow(limits, now)
        return buckets

    def _copy(self, tenant: str, tier: str, now: float) -> Buckets:
        """A copy of what `_find` would find."""
        limits, known = self._rules.limits(tenant, tier), self._tenants.get(tenant)
        if known is None and self._tenants.full(now):
            limits, known = self._rules.default, self._shared
        return copied(known, limits, now)

    def _copy_part(self, part: Part, now: float) -> Buckets | None:
        """A copy of what `_find_part` would find."""
        places, limits = self._parts[part.kind], part.limits
        known = places.get((part.tenant, part.name))
        if known is None and places.full(now):
            if part.kind == "user":
                return None
            limits, known = self._rules.default, self._shared_keys
        return copied(known, limits, now)
