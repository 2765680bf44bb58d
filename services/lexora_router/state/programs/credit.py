"""Credit: members lease what they may spend of a rate limit, or the places of calls under way, before they use it.

A bucket is its *level* and the leases that its members *hold*: held = granted - spent - returned, all three running totals. The
level grows by `rate` per second of the store's clock, and level and leases together are never more than `burst`: so over any
time t at most burst + rate * t is spent, whoever spends it. What a member has spent beyond its lease is a debt, which the level
pays at once, and may be below 0 for it. A bucket of rate 0 is one of places, which are spent
for as long as calls take: its level is what no member has, free or in use.

- A member that is given up loses its leases, which go back to the level.
- One that is not known here brings what it held when it was last heard of (`lease`). If it was given up here, that has
  gone back to the level, and is taken from there again. If this store has lost its memory, a new bucket starts at the
  lowest level that members remember, not full.
- A member that was alone has made credit for itself, its share. What of that the level has made as well it has `owed` since.
  The others were alone as well, most likely: as much for each of them is kept back for a while, until they say so, too.

Waiting calls get what they need in all their buckets, or nothing. What a member likes to hold beyond that, its `target`, it
gets of half of what is left. Members that have waited for longer have their share of the refill kept for them.
"""

from collections import OrderedDict
from collections.abc import Sequence
from math import floor

from msgspec import Struct

from lexora_router.state.program import ProgramKind, Turn, lua_beside

EXACT_SHARE = 10.0
"""A bucket whose burst is less than so much for each member is too small for leases: only waiting calls get something."""
YOUNG_SECONDS = 3.0  # for so long after a bucket is made members say what they remember of it
WANT_SECONDS = 0.3  # for so long what a member has asked for in vain is kept in mind
BACK_SECONDS = 1.5  # in which members come back that were alone at the same time
MAX_BUCKETS = 200_000
SWEPT = 2  # buckets looked at for each that is said, to forget those that are full
SLACK = 1e-6  # forgiven at a comparison


class Said(Struct, array_like=True):
    """What a member says of one bucket: its rules, its running totals, and what it has here."""

    name: str
    life: int  # another one than before: the member has forgotten the bucket in between, and its totals began anew
    rate: float  # per second; 0: of places
    burst: float
    granted: float  # total, as it has heard
    spent: float  # less what was given back, and what it has made for itself while alone
    returned: float
    given: float  # returned, as the store has heard it
    owed: float
    paid: float  # owed, as the store has heard it
    target: float
    level: float  # as last heard, and refilled since; the burst if never
    lease: float  # what it held by the store's last answer


class CreditAsk(Struct, array_like=True):
    """What a member says, and its waiting calls: for each the places of its buckets in `buckets`, and what it needs there."""

    buckets: Sequence[Said]
    calls: Sequence[Sequence[tuple[int, float]]] = ()


class CreditAnswer(Struct, array_like=True):
    """For each bucket that was said the running total of what was granted, and its level; and how many members live."""

    buckets: Sequence[tuple[float, float]]
    members: int


class _Holder:
    """What is known of a member at one bucket."""

    __slots__ = ("asked", "granted", "life", "owed", "returned", "since", "spent", "want")

    def __init__(self, said: Said) -> None:
        self.life = said.life
        self.granted = said.granted
        self.spent = said.spent
        self.returned = said.given
        self.owed = said.paid
        self.want = 0.0  # what it has asked for in vain
        self.asked = 0.0  # when
        self.since = 0.0  # since when it waits, or when it was last granted something

    @property
    def held(self) -> float:
        return self.granted - self.spent - self.returned


class _Asked:
    """What a member asks of one bucket: for calls that find all they need, for calls that do not, and to hold beside that."""

    __slots__ = ("missed", "needed", "spare", "target")

    def __init__(self, spare: float, target: float) -> None:
        self.spare = spare  # what it may get
        self.target = target
        self.needed = self.missed = 0.0


class _Bucket:
    """A level and its holders. `at` is when it was last refilled, `born` when it was made.

    `kept` of the level is for members that come back until `kept_until`.
    """

    __slots__ = ("at", "born", "burst", "holders", "kept", "kept_until", "level", "rate")

    def __init__(self, said: Said, now: float) -> None:
        self.rate = said.rate
        self.burst = said.burst
        self.level = min(said.level, said.burst)
        self.at = self.born = now
        self.kept = self.kept_until = 0.0
        self.holders: dict[str, _Holder] = {}

    def refill(self, turn: Turn) -> None:
        """Take back the leases of the dead, and add what has come since the last time."""
        for gone in [member for member in self.holders if member not in turn.members]:
            self.level += self.holders.pop(gone).held
        self.level += self.rate * max(turn.now - self.at, 0.0)
        self.at = turn.now
        self.cap()

    def cap(self) -> None:
        """Level and leases are never more than the burst; places are either free or held."""
        if self.rate:
            self.level = min(self.level, self.burst - sum(holder.held for holder in self.holders.values()))
        else:
            self.level = self.burst - sum(holder.granted - holder.returned for holder in self.holders.values())

    def hear(self, said: Said, turn: Turn) -> _Holder:
        """Take in what a member says."""
        holder = self.holders.get(turn.member)
        if holder is not None and holder.life != said.life:
            self.level += self.holders.pop(turn.member).held
            holder = None
        if holder is None:
            if turn.now - self.born < YOUNG_SECONDS:
                self.level = min(self.level, said.level)
            else:
                self.level -= said.lease
            holder = self.holders[turn.member] = _Holder(said)
        owed = said.owed - holder.owed
        self.level += said.returned - holder.returned - owed
        self._keep_back(owed, turn)
        holder.spent, holder.returned, holder.owed = said.spent, said.returned, said.owed
        self.rate, self.burst = said.rate, said.burst
        debt = -holder.held
        if debt > 0:
            holder.granted += debt
            self.level -= debt
        self.cap()
        return holder

    def _keep_back(self, owed: float, turn: Turn) -> None:
        if turn.now < self.kept_until:
            self.kept = max(self.kept - owed, 0.0)
        elif owed > 0:
            self.kept, self.kept_until = owed * (len(turn.members) - 1), turn.now + BACK_SECONDS
        else:
            self.kept = 0.0

    def spare(self, holder: _Holder, turn: Turn) -> float:
        """What this holder may get now: the level, without what is kept for those that have waited for longer."""
        level = self.level - self.kept
        if self.exact(turn):
            return max(level, 0.0)
        now = turn.now
        if not holder.want or now - holder.asked > WANT_SECONDS:
            holder.since = now
        others = [
            each for each in self.holders.values() if each is not holder and each.want and now - each.asked <= WANT_SECONDS
        ]
        share = self.rate / (len(others) + 1)
        kept = sum(min(each.want, share * (now - each.since)) for each in others if each.since < holder.since)
        return max(level - kept, 0.0)

    def grant(self, holder: _Holder, asked: _Asked, turn: Turn) -> None:
        """Give what waiting calls need, and of the rest towards the target."""
        held, now = holder.held, turn.now
        spare, needed, target = asked.spare, asked.needed, asked.target
        granted = min(max(needed - held, 0.0), spare)
        lacking = 0.0
        if not self.exact(turn):
            more = min(max(target + needed - held - granted, 0.0), (spare - granted) / 2)
            granted += more if self.rate else floor(more)
            lacking = max(target + needed - held - granted, 0.0) + asked.missed
        if granted > 0:
            holder.granted += granted
            self.level -= granted
            holder.since = now
        holder.want, holder.asked = lacking, now

    def exact(self, turn: Turn) -> bool:
        """Whether it is too small for leases."""
        return self.burst < EXACT_SHARE * len(turn.members)

    def full(self, turn: Turn) -> bool:
        """Whether to forget it would change nothing."""
        if turn.now - self.at < YOUNG_SECONDS:
            return False
        self.refill(turn)
        return self.level >= self.burst - SLACK and all(holder.held <= SLACK for holder in self.holders.values())


class Credit:
    """The program: buckets by name."""

    def __init__(self) -> None:
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    def run(self, request: CreditAsk, turn: Turn) -> CreditAnswer:
        """Take in what a member says of its buckets, and grant."""
        found = []
        for said in request.buckets:
            bucket = self._find(said, turn)
            bucket.refill(turn)
            holder = bucket.hear(said, turn)
            found.append((bucket, holder, _Asked(bucket.spare(holder, turn), said.target)))
        for call in request.calls:
            needs = [(*found[place][1:], amount) for place, amount in call]
            fits = all(asked.needed + amount <= holder.held + asked.spare + SLACK for holder, asked, amount in needs)
            for _, asked, amount in needs:
                if fits:
                    asked.needed += amount
                else:
                    asked.missed += amount
        for bucket, holder, asked in found:
            bucket.grant(holder, asked, turn)
        self._sweep(SWEPT * len(found), turn)
        return CreditAnswer([(holder.granted, bucket.level) for bucket, holder, _ in found], len(turn.members))

    def _find(self, said: Said, turn: Turn) -> _Bucket:
        bucket = self._buckets.get(said.name)
        if bucket is not None:
            self._buckets.move_to_end(said.name)
            return bucket
        if len(self._buckets) >= MAX_BUCKETS:
            self._buckets.popitem(last=False)
        bucket = self._buckets[said.name] = _Bucket(said, turn.now)
        return bucket

    def _sweep(self, most: int, turn: Turn) -> None:
        """Forget full ones among those that were not used for longest; the others go to the back."""
        for _ in range(min(most, len(self._buckets))):
            name, bucket = next(iter(self._buckets.items()))
            if turn.now - bucket.at < YOUNG_SECONDS:
                return
            if bucket.full(turn):
                del self._buckets[name]
            else:
                self._buckets.move_to_end(name)


CREDIT = ProgramKind(CreditAsk, CreditAnswer, Credit, lua_beside(__file__))
