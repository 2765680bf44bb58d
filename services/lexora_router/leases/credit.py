"""The rate limits of a replica over leases: what its buckets say to the store, and calls that wait for its answer."""

from collections import deque
from collections.abc import Callable, Sequence
from hashlib import blake2b
from itertools import count
from typing import Protocol

from msgspec import json

from lexora_router.leases.leased_bucket import LeasedBucket, LeasedPlaces
from lexora_router.policy.limit_buckets import Buckets
from lexora_router.policy.rate_charge import reserved_at
from lexora_router.policy.rate_limits import RateLimits
from lexora_router.policy.token_bucket import SLACK, TokenBucket
from lexora_router.state.programs.credit import CreditAnswer, CreditAsk, Said

MAX_SAID = 250  # buckets in one exchange; the others go with the next one, at once
MAX_CALLS = 250  # waiting calls in one exchange
LOOK_SECONDS = 0.5  # after so long a lease that is not used is looked at again

Needs = Sequence[tuple[LeasedBucket, float]]


class Exchanges(Protocol):
    """The part of a replica's link to the store that credit needs."""

    def nudge(self) -> None:
        """Let the next exchange be now."""

    async def exchanged(self) -> bool:
        """Wait for an exchange that begins from here on; False: the store is out of reach."""
        ...


class SharedBuckets(Buckets):
    """The buckets of one user, leased from the store; with a lease of places where its calls under way are limited."""

    __slots__ = ("_credit", "_name", "places")

    def __init__(self, name: tuple[str, ...], limits: RateLimits, now: float, credit: "Credit") -> None:
        self._name = name
        self._credit = credit
        self.places: LeasedPlaces | None = None
        super().__init__(limits, now)

    def make(self, dimension: str, rate: float, burst: float, now: float) -> TokenBucket:
        """A bucket that is leased."""
        return self._credit.bucket((*self._name, dimension), rate, burst, now)

    def follow(self, limits: RateLimits, now: float) -> None:
        """Take over other limits, those of calls under way as well."""
        super().follow(limits, now)
        most = limits.max_concurrent
        if most is None:
            return
        if self.places is None:
            self.places = self._credit.places((*self._name, "places"), most, now, lambda: self.open)
        else:
            self.places.adjust(0.0, most, now)

    def end(self, now: float) -> None:
        """A call is not under way any more; its place is free."""
        self.open -= 1
        if self.places is not None:
            self.places.freed()

    def room(self, most: int, now: float) -> bool:
        """Whether a place is held here that is free."""
        return self.places is None or self.places.room(self.open)

    def left(self, most: int, now: float) -> int:
        """Places that are free over all replicas, as far as is known here."""
        return super().left(most, now) if self.places is None else self.places.left(self.open, now)

    def forgettable(self, now: float) -> bool:
        """Whether nothing is held and all has been said."""
        return super().forgettable(now) and (self.places is None or self.places.full(now))

    def seen(self, now: float) -> Buckets:
        """Plain buckets that stand where these do over all replicas."""
        buckets, most = super().seen(now), self.limits.max_concurrent
        if most is not None and self.places is not None:
            self.places.hear_soon()
            buckets.open = most - self.places.left(self.open, now)
        return buckets

    def needs(self, tokens: int) -> Needs:
        """What a call needs of each bucket that may use so many tokens."""
        bucket, reserved = reserved_at(self, tokens)
        found = [(self.requests, 1.0), (bucket, float(reserved)), (self.places, 1.0)]
        if self.limits.max_concurrent is None:
            found.pop()
        return [(each, amount) for each, amount in found if isinstance(each, LeasedBucket)]


class _Waiting:
    """A call that waits for an exchange that carries its needs, and then for its turn, with what it needs pledged to it."""

    __slots__ = ("answered", "gone", "needs", "pledged")

    def __init__(self, needs: Needs) -> None:
        self.needs = needs
        self.answered = self.pledged = self.gone = False

    def answer(self, now: float) -> None:
        """The store has answered: keep what the call needs, or note what is missing."""
        if self.answered or self.gone:
            return
        self.answered = True
        missing = [bucket for bucket, amount in self.needs if bucket.balance(now) + SLACK < amount]
        for bucket in missing:
            bucket.missed(now)
        if not missing:
            self.pledged = True
            for bucket, amount in self.needs:
                bucket.pledge(amount)

    def end(self) -> None:
        """It is the call's turn, or its client has left."""
        self.gone = True
        if self.pledged:
            for bucket, amount in self.needs:
                bucket.release(amount)


class Credit:
    """A participant of the link; it is alone until the first exchange."""

    program = "credit"

    def __init__(self, link: Exchanges, clock: Callable[[], float]) -> None:
        self.share = 1.0
        self.since = clock()
        self.members = 1
        self._link = link
        self._clock = clock
        self._lives = count(1)
        self._touched: list[LeasedBucket] = []
        self._alone: list[LeasedBucket] = []
        self._held: deque[tuple[float, LeasedBucket]] = deque()  # those that hold something, and when to look at them again
        self._waiting: list[_Waiting] = []
        self._asked: list[tuple[LeasedBucket, Said]] = []  # in the exchange under way
        self._riding: list[_Waiting] = []  # the same

    def buckets(self, name: tuple[str, ...], limits: RateLimits, now: float) -> SharedBuckets:
        """The buckets of one user."""
        return SharedBuckets(name, limits, now, self)

    def bucket(self, name: tuple[str, ...], rate: float, burst: float, now: float) -> LeasedBucket:
        """The lease of one bucket; the store has a hash of its name."""
        return LeasedBucket(_hashed(name), rate, burst, now, self, next(self._lives))

    def places(self, name: tuple[str, ...], most: int, now: float, count: Callable[[], int]) -> LeasedPlaces:
        """The lease of places of which `count` are taken here."""
        return LeasedPlaces(_hashed(name), most, now, self, next(self._lives), count)

    def within_reach(self, charged: Sequence[Buckets], tokens: int, now: float) -> bool:
        """Whether a call that was refused may go on after an exchange; if not, the next one brings the levels at least."""
        needs = _needs(charged, tokens)
        found = all(bucket.within_reach(amount, now) for bucket, amount in needs if amount)
        if not found:
            for bucket, _ in needs:
                bucket.hear_soon()
        return found

    async def obtain(self, charged: Sequence[Buckets], tokens: int) -> None:
        """Wait until the store has answered what a call needs; after `state.timeout` it takes a share of what was heard."""
        waiting = _Waiting(_needs(charged, tokens))
        self._waiting.append(waiting)
        try:
            while not waiting.answered:
                if not await self._link.exchanged():
                    self._borrow(waiting.needs)
                    return
        finally:
            self._waiting.remove(waiting)
            waiting.end()

    def lend(self, charged: Sequence[Buckets], tokens: int) -> None:
        """Spend what a call needs that is over already, as a debt."""
        for bucket, amount in _needs(charged, tokens):
            if bucket.rate and amount:
                bucket.spend(amount)

    def touch(self, bucket: LeasedBucket) -> None:
        """The bucket has something to say."""
        bucket.dirty = True
        self._touched.append(bucket)

    def went_alone(self, bucket: LeasedBucket) -> None:
        """The bucket makes its own credit."""
        self._alone.append(bucket)

    def nudge(self) -> None:
        """Let the next exchange be now."""
        self._link.nudge()

    def ask(self, now: float) -> CreditAsk | None:
        """What has changed since the last exchange, and what waiting calls need; alone nothing, until `together`."""
        if self.share:
            return None
        self._unsaid()
        self._look(now)
        riding, said, calls = self._chosen()
        self._riding = riding
        for bucket in said:
            bucket.dirty, bucket.asking = False, True
        self._asked = [(bucket, bucket.say(now)) for bucket in said]
        if not self._asked:
            return None
        if self._touched:
            self._link.nudge()
        return CreditAsk([each for _, each in self._asked], calls)

    def hear(self, answer: CreditAnswer, now: float) -> None:
        """Take in what was granted."""
        self.members = answer.members
        asked, self._asked = self._asked, []
        for (bucket, said), (granted, level) in zip(asked, answer.buckets, strict=True):
            bucket.asking = False
            bucket.hear(said, granted, level, now)
            if not bucket.queued and bucket.holds(now):
                bucket.queued = True
                self._held.append((now + LOOK_SECONDS, bucket))
        for waiting in self._riding:
            waiting.answer(now)
        self._riding = []
        for bucket, _ in asked:
            if bucket.exact and not bucket.dirty and bucket.balance(now) > 0:
                self.touch(bucket)  # its call has left: it goes back with the next exchange

    def alone(self, share: float, now: float) -> None:
        """Go on with a share of all there is; each bucket does at its next use."""
        if not self._alone:
            self.share, self.since = share, now

    def together(self, now: float, *, fresh: bool) -> None:
        """Lease again, and owe what was made alone. Where the member is a new one, all that is held is said anew."""
        rejoining, self._alone = self._alone, []
        for bucket in rejoining:
            bucket.rejoin(now)
        self.share = 0.0
        self._unsaid()
        if fresh:
            for _, bucket in self._held:
                if not bucket.dirty:
                    self.touch(bucket)

    def _borrow(self, needs: Needs) -> None:
        for bucket, amount in needs:
            bucket.borrow(amount, self._clock())

    def _unsaid(self) -> None:
        """What was asked in an exchange without an answer is to be asked again."""
        asked, self._asked, self._riding = self._asked, [], []
        for bucket, _ in asked:
            bucket.asking = False
            if not bucket.dirty:
                self.touch(bucket)

    def _look(self, now: float) -> None:
        """Let leases that were not used lately be said, so that they go back."""
        held = self._held
        while held and held[0][0] <= now:
            _, bucket = held.popleft()
            bucket.queued = False
            if not bucket.dirty:
                self.touch(bucket)

    def _chosen(self) -> tuple[list[_Waiting], list[LeasedBucket], list[list[tuple[int, float]]]]:
        """Calls and buckets of the next exchange, within its bounds. Calls that have what they need still hold it there."""
        places: dict[LeasedBucket, int] = {}
        riding: list[_Waiting] = []
        calls: list[list[tuple[int, float]]] = []
        for waiting in self._waiting[:MAX_CALLS]:
            if len(places) >= MAX_SAID:
                break
            riding.append(waiting)
            calls.append([(places.setdefault(bucket, len(places)), amount) for bucket, amount in waiting.needs])
        touched, self._touched = self._touched, []
        for at, bucket in enumerate(touched):
            if len(places) >= MAX_SAID:
                self._touched = [each for each in touched[at:] if each not in places]
                break
            places.setdefault(bucket, len(places))
        return riding, list(places), calls


def _needs(charged: Sequence[Buckets], tokens: int) -> Needs:
    return [need for buckets in charged if isinstance(buckets, SharedBuckets) for need in buckets.needs(tokens)]


def _hashed(name: tuple[str, ...]) -> str:
    return blake2b(json.encode(name), digest_size=12).hexdigest()
