"""Whether failures speak against the endpoint where they happened, or against what was asked there.

One client may send, ten times a second, what every engine fails at. Where that counted as five failures in a row, one client
could close a whole pool to all others. So each failure has a source (its tenant and its request), and weighs by what became of
the request:

- It succeeded at another endpoint: confirmed, a failure of the endpoint in full.
- It failed at another endpoint that passes its probes: excused, for it follows the request.
- Neither: undecided. It counts once for each request, and a single tenant's failures count only while no other tenant's calls
  end well here.

Successes are the other half: where answers and failures come mixed, a row of failures has to be longer than chance makes it.
"""

from collections import Counter
from dataclasses import dataclass
from enum import IntEnum
from math import ceil, inf, log
from typing import NamedTuple

from lexora_router.policy.sliding_pair import SlidingPair

# Successes have stopped when none has come for so many of their mean gaps: by chance that happens once in 3,000 gaps.
GAPS = 8.0
MIN_PAUSE = 1.0  # seconds; the first few successes say little of their gaps
# A row of failures that chance makes more seldom than this, at the share of failures before it, is no chance.
CHANCE = 1e-4
MAX_SOURCES = 1000


class RequestSource(NamedTuple):
    """Where a failure came from: the tenant, and the fingerprint of its request."""

    tenant: str
    request: int


class Strength(IntEnum):
    """How much a row of failures says of the endpoint; thin: only one tenant, or a few requests, have come."""

    NONE = 0
    THIN = 1
    FIRM = 2


@dataclass(frozen=True, slots=True)
class Suspects:
    """The sources of thin evidence: single requests, or, where these are none, all of one tenant's."""

    requests: frozenset[RequestSource]
    tenants: frozenset[str]

    def include(self, source: RequestSource) -> bool:
        """Whether a call of this source would be no new evidence."""
        return source in self.requests if self.requests else source.tenant in self.tenants


@dataclass(slots=True)
class Charge:
    """One failure, for its call to confirm or excuse."""

    source: RequestSource
    at: float
    row: int
    counted: bool  # among the ends of the window
    open: bool = True  # undecided, and in its row
    trial: bool = False  # it ended a trial


class _Latest:
    """When something happened last to a tenant, and to any other: two entries are enough to say it of each."""

    __slots__ = ("_at", "_other_at", "_tenant")

    def __init__(self) -> None:
        self._tenant = ""
        self._at = self._other_at = -inf

    def note(self, tenant: str, now: float) -> None:
        if tenant != self._tenant:
            self._tenant, self._other_at = tenant, self._at
        self._at = now

    def of_others(self, tenant: str) -> float:
        """The last instant at which it happened to another tenant."""
        return self._at if tenant != self._tenant else self._other_at


class Evidence:
    """What the ends of calls say of one endpoint, over `window` seconds; a row is the failures since the last success.

    Memory is constant, and so is the time of a success. Instants are monotonic, in seconds.
    """

    __slots__ = (
        "_answered",
        "_companions",
        "_confirmed",
        "_died_at",
        "_ends",
        "_failed",
        "_first_at",
        "_length",
        "_lone_from",
        "_mixed",
        "_repeats_from",
        "_row",
        "_row_at",
        "_undecided",
        "_window",
        "answered_at",
    )

    def __init__(self, window: float) -> None:
        self._window = window
        self._ends = SlidingPair(window)  # successes and failures since the last `forget`
        self._mixed = SlidingPair(window)  # all of them, excused ones too
        self._answered = _Latest()
        self._failed = _Latest()
        self._first_at = inf  # the first success ever
        self._lone_from = self._repeats_from = -inf  # before, one tenant's failures or repeated ones are not enough
        self._row = 0
        self._died_at = -inf  # when the engine broke last under what was under way
        self.answered_at = -inf  # the last success
        self._new_row()

    def succeeded(self, tenant: str, now: float) -> None:
        """A call ended well."""
        self._ends.add(now, 1, 0)
        self._mixed.add(now, 1, 0)
        self._answered.note(tenant, now)
        self.answered_at = now
        if self._first_at == inf:
            self._first_at = now
        if self._length:
            self._new_row()

    def failed(
        self, now: float, source: RequestSource | None = None, *, excused: bool = False, broke: float | None = None
    ) -> Charge | None:
        """A call failed; without a source it says as much as one whose request succeeded elsewhere.

        `broke` is when it began, where the engine seems to have broken under it.
        """
        if not self._length:
            self._row_at = now
        self._length += 1
        if broke is not None:
            if broke <= self._died_at:
                self._companions += 1
            else:
                self._died_at = now
        self._mixed.add(now, 0, 1)
        if source is None:
            self._confirmed += 1
            self._ends.add(now, 0, 1)
            return None
        counted = not excused and source not in self._undecided and not self._lone(source.tenant, now)
        charge = Charge(source, now, self._row, counted, open=not excused)
        self._failed.note(source.tenant, now)
        if counted:
            self._ends.add(now, 0, 1)
        if charge.open and (len(self._undecided) < MAX_SOURCES or source in self._undecided):
            self._undecided[source] += 1
        return charge

    def confirm(self, charge: Charge, now: float) -> None:
        """Its request has succeeded elsewhere."""
        if not charge.counted:
            charge.counted = True
            self._ends.add(now, 0, 1)
        if self._decide(charge):
            self._confirmed += 1

    def excuse(self, charge: Charge) -> None:
        """Its request has failed elsewhere."""
        if charge.counted:
            charge.counted = False
            self._ends.take_back(charge.at, 0, 1)
        self._decide(charge)

    def forget(self) -> None:
        """Count anew; what is known of the mixture of answers and failures stays."""
        self._ends.clear()
        self._new_row()

    def doubt(self, suspects: Suspects, until: float) -> None:
        """Others than the suspects ask: until then evidence as thin is not enough."""
        self._repeats_from = until
        if not suspects.requests:
            self._lone_from = until

    def ends(self, now: float) -> tuple[int, int]:
        """How many calls ended well and how many failed, of those in the window that are counted."""
        return self._ends.totals(now)

    def lively(self, now: float) -> bool:
        """Whether calls end well here these days."""
        return now - self.answered_at < self._pause(now)

    def strength(self, limit: int, now: float) -> Strength:
        """What the row says, where `limit` failures in a row open a breaker."""
        if self._length < limit:
            return Strength.NONE
        if self._confirmed >= limit:
            return Strength.FIRM
        lone = self._lone_tenant()
        enough = self._confirmed + len(self._undecided) >= max(limit, self._by_chance(now))
        if enough and lone is None:
            return Strength.FIRM
        if enough and now >= self._lone_from and not self._others_answered(lone or "", now):
            return Strength.THIN
        # The same few requests again and again: they say something where nothing else is asked, or all else has stopped.
        repeated = self._confirmed + self._undecided.total() >= limit and not self.lively(now)
        # All that was asked failed elsewhere too. Then this is no worse than the others, but there is nothing to wait for.
        hopeless = now - max(self.answered_at, self._row_at) >= self._pause(now)
        return Strength.THIN if now >= self._repeats_from and (repeated or hopeless) else Strength.NONE

    def of_one_death(self, limit: int) -> bool:
        """Whether the row would be too short if calls that were under way together when the engine broke counted as one."""
        return self._length - self._companions < limit <= self._length

    def suspects(self, limit: int) -> Suspects:
        """Whose failures make up the row."""
        few = len(self._undecided) < limit
        return Suspects(
            frozenset(self._undecided) if few else frozenset(), frozenset(source.tenant for source in self._undecided)
        )

    def _decide(self, charge: Charge) -> bool:
        """Take a charge out of the undecided ones; False when its row is over or it was decided before."""
        if not charge.open:
            return False
        charge.open = False
        if charge.row != self._row:
            return False
        left = self._undecided[charge.source] - 1
        if left > 0:
            self._undecided[charge.source] = left
        else:
            del self._undecided[charge.source]
        return True

    def _new_row(self) -> None:
        self._row += 1
        self._length = self._confirmed = self._companions = 0
        self._row_at = 0.0  # its first failure
        self._undecided: Counter[RequestSource] = Counter()

    def _lone_tenant(self) -> str | None:
        """The only tenant that has failed in this row, if nothing else speaks against the endpoint."""
        if self._confirmed:
            return None
        tenants = {source.tenant for source in self._undecided}
        return tenants.pop() if len(tenants) == 1 else None

    def _lone(self, tenant: str, now: float) -> bool:
        """Whether of late others end well here, and none of them fails."""
        return self._others_answered(tenant, now) and now - self._failed.of_others(tenant) > self._window

    def _others_answered(self, tenant: str, now: float) -> bool:
        return now - self._answered.of_others(tenant) <= self._window

    def _by_chance(self, now: float) -> int:
        """How long a row may be without meaning anything, by the share of failures before it."""
        good, bad = self._mixed.totals(now)
        before = bad - self._length
        if good <= 0 or before <= 0:
            return 0
        return ceil(log(CHANCE) / log(before / (before + good)))

    def _pause(self, now: float) -> float:
        """Seconds without a success after which they have stopped."""
        good = self._mixed.totals(now)[0]
        if not good:
            return self._window
        span = self.answered_at - max(self._first_at, now - self._window)
        return min(self._window, max(MIN_PAUSE, GAPS * span / good))
