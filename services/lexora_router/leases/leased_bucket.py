"""A token bucket whose tokens are leased: the store has counted them as gone, and the replica spends them on its own."""

from collections.abc import Callable
from math import ceil, exp, floor, inf
from typing import Protocol

from lexora_contract.answer import BucketState
from lexora_router.policy.token_bucket import SLACK, TokenBucket
from lexora_router.state.programs.credit import EXACT_SHARE, Said

LEASE_SECONDS = 0.25  # of recent use: what a replica likes to hold
MEMORY_SECONDS = 0.5  # over so long use is averaged
IDLE_SECONDS = 1.0  # a lease that was not used for so long goes back
RETRY_SECONDS = 0.1  # after an exchange that brought too little the store is not asked again for so long
STALE_SECONDS = 0.5  # a level that was heard so long ago is no reason to refuse a call without asking
SPARE_PLACES = 0.25  # places that are kept for more calls at once than lately


class Ledger(Protocol):
    """What all leased buckets of a replica have in common."""

    share: float  # 0 while the store answers; else what of all there is belongs to this replica
    since: float  # since when, where it is not 0
    members: int

    def touch(self, bucket: "LeasedBucket") -> None:
        """The bucket has something to say in the next exchange."""

    def went_alone(self, bucket: "LeasedBucket") -> None:
        """The bucket makes its own credit until the store answers."""

    def nudge(self) -> None:
        """Let the next exchange be now."""


class LeasedBucket(TokenBucket):
    """A lease of a bucket at the store; its balance is what the replica holds of it. `now` is monotonic, in seconds.

    With a rate of 0 it is a lease of places: what is spent is in use, and comes back. While the store is out of reach
    (`share` of the ledger) the bucket makes its own credit, its share of rate and burst, beginning with what it holds and its
    share of the level that was heard last.
    """

    __slots__ = (
        "_alone",
        "_back",
        "_borrowed",
        "_cap",
        "_heard",
        "_heard_at",
        "_lease",
        "_ledger",
        "_life",
        "_made",
        "_mark",
        "_peak",
        "_pledged",
        "_said_at",
        "_taken",
        "_unmet_until",
        "_use",
        "_used_at",
        "asking",
        "dirty",
        "given",
        "granted",
        "name",
        "owed",
        "paid",
        "queued",
        "returned",
        "spent",
    )

    def __init__(self, name: str, rate: float, burst: float, now: float, ledger: Ledger, life: int) -> None:  # noqa: PLR0917
        self.name = name
        self._life = life
        self._ledger = ledger
        self._alone = 0.0  # the share by which it makes its own credit now
        self._set(rate, burst)
        self._level = 0.0
        self._at = self._said_at = self._used_at = now
        self.granted = self.spent = self.returned = self.given = self.owed = self.paid = 0.0
        self._lease = 0.0  # by the last answer
        self._made = 0.0  # since it is alone
        self._cap = 0.0  # while alone
        self._pledged = 0.0
        self._heard: float | None = None  # the level at the store
        self._heard_at = now
        self._borrowed = 0.0  # of that level, since it was heard
        self._taken = 0.0  # the same, made alone at earlier times: a store that comes and goes is no gift each time
        self._unmet_until = now
        self._back = 0.0  # given back, and made
        self._mark = self._use = self._peak = 0.0
        self.dirty = False  # it has something to say
        self.asking = False  # it is said in the exchange under way
        self.queued = False  # it will be looked at, because it holds something

    def balance(self, now: float) -> float:
        """What is held here; negative while in debt."""
        if self._ledger.share:
            if not self._alone:
                self._go_alone(self._ledger.share)
            self._make(now)
        return self._level

    def spend(self, n: float) -> float:
        """Take n that were found here now; gives the balance that is left."""
        self._level -= n
        self.spent += n
        if not self.dirty:
            self._ledger.touch(self)
        return self._level

    def take(self, n: float, now: float) -> bool:
        """Take n if they are held here; alone also with a debt for what is above its share of the burst."""
        if self._level < n and self.wait(n, now):
            return False
        self.spend(n)
        return True

    def settle(self, reserved: float, actual: float, now: float) -> None:
        """Correct a reservation; see TokenBucket."""
        change = actual - reserved
        self.balance(now)
        self._level -= change
        self.spent += change
        if change < 0:
            self._back -= change
        over = self._level - self.burst
        if over > 0:
            self._level -= over
            self.spent += over
            self._back -= over
        if not self.dirty:
            self._ledger.touch(self)

    def wait(self, n: float, now: float) -> float:
        """Seconds until n are likely to be there, by the level that was heard; 0 only when they are held here."""
        balance = self.balance(now)
        if self._alone:
            missing = min(n, self._cap) - balance
            return 0.0 if missing <= SLACK else missing / (self.rate * self._alone) if self.rate else RETRY_SECONDS
        missing = n - balance
        if missing <= SLACK:
            return 0.0
        if n > self.burst:
            return inf
        refill = (missing - self.beyond(now)) / self.rate if self.rate else 0.0
        return max(refill, self._unmet_until - now, RETRY_SECONDS)

    def within_reach(self, n: float, now: float) -> bool:
        """Whether n are held here, or an exchange with the store may bring what is missing."""
        missing = n - self.balance(now)
        if missing <= SLACK:
            return True
        if self._alone or n > self.burst or now < self._unmet_until:
            return False
        if self._heard is None or now - self._heard_at >= (STALE_SECONDS if self.rate else RETRY_SECONDS):
            return True
        return missing <= self.beyond(now) + SLACK

    def pledge(self, n: float) -> None:
        """Keep n, which were found here, for a call that has waited for them, until it is its turn: no other takes them."""
        self._level -= n
        self._pledged += n

    def release(self, n: float) -> None:
        """It is its turn."""
        self._level += n
        self._pledged -= n
        if not self.dirty:
            self._ledger.touch(self)

    def missed(self, now: float) -> None:
        """A waiting call has not got what it needs: it is pointless to ask again at once."""
        self._unmet_until = now + RETRY_SECONDS

    def full(self, now: float) -> bool:
        """Whether to forget it would change nothing: the store has the rest."""
        return not (self.dirty or self.asking or self.queued or self._alone or self.holds(now))

    def holds(self, now: float) -> bool:
        """Whether the store has granted what is not spent yet, or a place that is in use."""
        return bool(self._level or self._pledged or (self.spent and not self.rate))

    def adjust(self, rate: float, burst: float, now: float) -> None:
        """Go on with another rate and burst; the store does the same without a gift when it hears this."""
        self.balance(now)
        self._set(rate, burst)
        self.settle(0, 0, now)

    def beyond(self, now: float) -> float:
        """The level at the store: as it was heard, and refilled since; never heard: full."""
        if self._heard is None:
            return self.burst
        return min(self._heard + (now - self._heard_at) * self.rate, self.burst - self._lease)

    def state(self, left: float, now: float) -> BucketState:
        """Where the bucket stands over all replicas, as far as is known here: what is held, and the level at the store."""
        burst = self.burst
        if not self._alone:
            left += self.beyond(now)
        left = min(left, burst)
        # 98.9999999 is 99.
        return BucketState(int(burst), floor(left + SLACK) if left > 0 else 0, (burst - left) / self.rate)

    def seen(self, now: float) -> TokenBucket:
        """A bucket of its own that stands where this one does over all replicas; the level is soon heard again."""
        self.hear_soon()
        balance = self.balance(now)
        if self._alone:
            return TokenBucket(self.rate * self._alone, self._cap, now, balance)
        return TokenBucket(self.rate, self.burst, now, min(balance + self.beyond(now), self.burst))

    def borrow(self, n: float, now: float) -> None:
        """Make what is missing of n, within a share of the level that was heard: the store was too slow for a waiting call."""
        beyond = self.beyond(now)
        missing = n - self.balance(now)
        left = (beyond + self._borrowed) / self._ledger.members - self._borrowed - self._taken
        if self._alone or missing <= SLACK or missing > left:
            return
        self._heard, self._heard_at = beyond - missing, now
        self._borrowed += missing
        self._level += missing
        if self.rate:
            self.spent -= missing
            self._back += missing
            self.owed += missing
        else:
            self.returned -= missing
        if not self.dirty:
            self._ledger.touch(self)

    def hear_soon(self) -> None:
        """Let the next exchange bring the level."""
        if not self.dirty and not self._alone:
            self._ledger.touch(self)

    @property
    def exact(self) -> bool:
        """Whether it is too small for leases."""
        return self.burst < EXACT_SHARE * self._ledger.members

    def say(self, now: float) -> Said:
        """What an exchange says of this bucket. Gives back what is held for no use."""
        target = self._target(now)
        if self._level > (2 * target if self.rate else target):
            back = self._level - target
            self.returned += back
            self._level -= back
        return Said(
            self.name,
            self._life,
            self.rate,
            self.burst,
            self.granted,
            self.spent,
            self.returned,
            self.given,
            self.owed,
            self.paid,
            target,
            self.beyond(now),
            self._lease,
        )

    def hear(self, said: Said, granted: float, level: float, now: float) -> None:
        """The store's answer to that."""
        self._level += granted - self.granted
        self.granted = granted
        self.given, self.paid = said.returned, said.owed
        self._lease = granted - said.spent - said.returned
        self._heard, self._heard_at = level, now
        self._borrowed = self._taken = 0.0

    def rejoin(self, now: float) -> None:
        """The store answers again: what was made here of what the store has made as well is owed to it."""
        self.balance(now)
        self.owed += min(self._made, max(self._cap - self._lease, 0.0)) if self.rate else self._cap
        self._taken += self._made
        self._alone = self._made = 0.0
        if not self.dirty:
            self._ledger.touch(self)

    def _go_alone(self, share: float) -> None:
        since = self._ledger.since
        beyond = self.beyond(since)
        self._alone = share
        self._ledger.went_alone(self)
        self._cap = max(share * self.burst, 1.0)
        self._at = since
        if self.rate:
            left = share * (beyond + self._borrowed) - self._borrowed - self._taken
            self._grow(min(left, self._cap - self._level - self._pledged))
            return
        self._cap = float(floor(self._cap))
        free = self._cap - self.spent  # calls that are under way have places of the share
        self.returned -= free - self._level - self._pledged
        self._level = free - self._pledged

    def _make(self, now: float) -> None:
        elapsed = now - self._at
        if elapsed > 0 and self.rate:
            self._at = now
            self._grow(min(elapsed * self.rate * self._alone, self._cap - self._level))

    def _grow(self, made: float) -> None:
        if made > 0:
            self._level += made
            self.spent -= made
            self._back += made
            self._made += made

    def _target(self, now: float) -> float:
        """What to hold of it, by recent use; of places, what to hold beside those in use."""
        elapsed = max(now - self._said_at, 0.0)
        fade = exp(-elapsed / MEMORY_SECONDS)
        self._said_at = now
        gross = self.spent + self._back
        used, self._mark = max(gross - self._mark, 0.0), gross
        if used or (self.spent and not self.rate):
            self._used_at = now
        self._use = self._use * fade + used / MEMORY_SECONDS
        if self.exact or now - self._used_at > IDLE_SECONDS:
            self._peak = self.spent
            return 0.0
        if self.rate:
            # Twice what was used lately: a load that begins asks seldom.
            return min(max(self._use * LEASE_SECONDS, 2 * used), self.burst / self._ledger.members / 4)
        self._peak = max(self._peak * fade, self.spent)
        return max(ceil(self._peak * (1 + SPARE_PLACES)) - self.spent, 0.0) if self._peak >= 1 else 0.0

    def _set(self, rate: float, burst: float) -> None:
        if rate:
            super()._set(rate, burst)
        else:
            self.rate, self.burst = 0.0, float(burst)


class LeasedPlaces(LeasedBucket):
    """A lease of places; those in use are counted by the buckets that they are of."""

    __slots__ = ("_count",)

    def __init__(self, name: str, most: float, now: float, ledger: Ledger, life: int, count: Callable[[], int]) -> None:  # noqa: PLR0917
        super().__init__(name, 0.0, most, now, ledger, life)
        self._count = count
        taken = count()
        if taken:  # by calls that began before places were limited
            self.spent, self.returned = taken, -taken
            ledger.touch(self)

    def balance(self, now: float) -> float:
        """Places that are held here and free."""
        self._follow()
        return super().balance(now)

    def room(self, taken: int) -> bool:
        """Whether one more is held than are taken."""
        if self._ledger.share:
            return self.balance(self._ledger.since) >= 1
        return taken < self._level + self.spent

    def left(self, taken: int, now: float) -> int:
        """Places that are free over all replicas, as far as is known here, where so many are taken."""
        if self._ledger.share:
            return max(floor(self.balance(now)), 0)
        free = self._level + self.spent - taken + (self.burst if self._heard is None else self._heard)
        return int(max(min(free, self.burst), 0.0))

    def freed(self) -> None:
        """A place is free again: of few, the others have it at once."""
        if self.exact:
            if not self.dirty:
                self._ledger.touch(self)
            self._ledger.nudge()

    def say(self, now: float) -> Said:
        """What an exchange says of them."""
        self._follow()
        return super().say(now)

    def full(self, now: float) -> bool:
        """Whether none is held."""
        self._follow()
        return super().full(now)

    def _follow(self) -> None:
        taken = self._count()
        self._level -= taken - self.spent
        self.spent = taken
