"""A circuit breaker: when to stop asking an endpoint that fails, and when to try it again.

Closed, all calls go through, and each counts once, by its end. Open, none goes. After a while it is half-open: one call, the
trial, goes through. It passes with its first token, so that other calls need not wait for the end of a long stream. A unary
answer says nothing before its end, which may be minutes away: when a trial has run for as long as the breaker was open,
one more may begin, and the first of them to speak or to fail decides. The next open time is longer, until it has stayed closed
for a while.

The caller says what an end means. A failure is the endpoint's fault: no connection, a broken or empty answer, silence, a 5xx.
Neutral is everything that says nothing about its health: 4xx (the client's fault), 429 and 503 (it is alive and busy), a
cancelled call. Neutral ends neither open a breaker nor close it; a neutral trial makes way for the next one.

An engine that dies fails all that it has under way, which opens the breaker and says nothing of the engine that comes after it.
So the trial may come as soon as the endpoint is seen to be back (`back`).

Failures in a row are weighed by `policy/evidence.py`. On thin evidence (only one tenant or a few requests were there to fail)
it is open to these alone: `give_way` closes it for the first other call.
"""

from dataclasses import dataclass
from enum import Enum, StrEnum, auto

from lexora_router.policy.backoff import Backoff
from lexora_router.policy.evidence import Charge, Evidence, RequestSource, Strength, Suspects


class State(StrEnum):
    """Whether calls go through."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class Event(Enum):
    """What moves a breaker."""

    TRIPPED = auto()  # too many failures, or another component's judgement
    WAITED = auto()  # the open time is over
    TRIAL_PASSED = auto()
    TRIAL_FAILED = auto()
    DOUBTED = auto()  # it opened on thin evidence, and there is more to ask


WARNED_FAILURES = 2
"""Failures in a row that are enough for a while after another breaker of the same endpoint has opened."""

TRANSITIONS: dict[tuple[State, Event], State] = {
    (State.CLOSED, Event.TRIPPED): State.OPEN,
    (State.OPEN, Event.WAITED): State.HALF_OPEN,
    (State.HALF_OPEN, Event.TRIAL_PASSED): State.CLOSED,
    (State.HALF_OPEN, Event.TRIAL_FAILED): State.OPEN,
    (State.HALF_OPEN, Event.TRIPPED): State.OPEN,
    (State.OPEN, Event.DOUBTED): State.CLOSED,
    (State.HALF_OPEN, Event.DOUBTED): State.CLOSED,
}
"""All moves there are: an event that has no line here leaves the state as it is."""


@dataclass(frozen=True, slots=True)
class BreakerRules:
    """When to open, and for how long.

    Opens after `consecutive_failures`, or when at least `failure_share` (None: never) of `min_volume` calls or more within
    `window` seconds failed. Stays open for `open_time` seconds, each time `growth` times longer, up to `max_open_time`; after
    that long closed without a break it starts over.
    """

    consecutive_failures: int = 5
    failure_share: float | None = 0.5
    min_volume: int = 20
    window: float = 10.0
    open_time: float = 5.0
    growth: float = 2.0
    max_open_time: float = 60.0


class Breaker:
    """The breaker of one endpoint.

    `allow` gives a permit, to be handed back with the end of the call. Calls that began before the breaker opened don't decide
    about the trial: their permits have ended with it.
    """

    __slots__ = (
        "_backoff",
        "_evidence",
        "_oldest",
        "_permit",
        "_rules",
        "_since",
        "_state",
        "_streak",
        "_suspects",
        "_until",
        "_wait",
        "_warned_until",
        "opened",
        "opened_by_one_death",
    )

    def __init__(self, rules: BreakerRules = BreakerRules()) -> None:
        self._rules = rules
        self._backoff = Backoff(rules.open_time, rules.growth, rules.max_open_time)
        self._evidence = Evidence(rules.window)
        self._suspects: Suspects | None = None  # those that it opened for, where that was on thin evidence
        self._state = State.CLOSED
        self._since = 0.0  # when it closed last
        self._until = 0.0  # when the next trial may begin; 0 while closed
        self._wait = 0.0  # the last open time
        self._streak = 0  # open times without a good while between them
        self._oldest = self._permit = 1  # of the permits that still count, and the newest
        self._warned_until = 0.0  # by another judge: until then fewer failures are enough
        self.opened = 0  # times, ever
        self.opened_by_one_death = False  # open because of calls that were under way together when the engine broke

    def follow(self, rules: BreakerRules) -> None:
        """Go on under other rules: the state stays, and the counts too unless they are taken over another window."""
        if rules.window != self._rules.window:
            self._evidence = Evidence(rules.window)
        self._rules = rules
        self._backoff = Backoff(rules.open_time, rules.growth, rules.max_open_time)

    def allow(self, now: float) -> int:
        """Ask for a call to go through: a permit, or 0. When it is not closed, the one call that gets a permit is the trial."""
        if self._state is State.CLOSED:
            return self._permit
        if now < self._until:
            return 0
        self._move(Event.WAITED, now)
        self._until = now + self._wait
        self._permit += 1
        return self._permit

    def ready(self, now: float) -> bool:
        """Whether `allow` would give a permit, without asking for it."""
        return now >= self._until

    def on_first_token(self, now: float, permit: int) -> bool:
        """A call has begun to answer; True when it was the trial, and has closed the breaker. Its end counts as any other's."""
        passed = self._state is State.HALF_OPEN and permit >= self._oldest
        if passed:
            self._move(Event.TRIAL_PASSED, now)
        return passed

    def on_success(self, now: float, permit: int, tenant: str = "") -> None:
        """A call ended well."""
        if permit < self._oldest:
            if self._suspects is not None:
                self._doubt(now)
            return
        self.on_first_token(now, permit)
        self._evidence.succeeded(tenant, now)

    def on_failure(
        self,
        now: float,
        permit: int,
        source: RequestSource | None = None,
        *,
        excused: bool = False,
        broke: float | None = None,
    ) -> Charge | None:
        """A call failed, at its begin or in the middle, and it was the endpoint's fault, as far as is known.

        With a source it may have been the request's: what is given back is to be confirmed or excused when that is known;
        `excused` when it is known already. `broke` is when the call began, where the engine seems to have broken under it.
        """
        if permit < self._oldest:
            return None
        if self._state is State.HALF_OPEN:
            if excused and self._evidence.lively(now):
                self.on_neutral(now, permit)
                return None
            self._move(Event.TRIAL_FAILED, now)
            return None if source is None else Charge(source, now, row=0, counted=True, trial=True)
        charge = self._evidence.failed(now, source, excused=excused, broke=broke)
        self._judge(now)
        return charge

    def confirm(self, now: float, charge: Charge) -> None:
        """The request of this failure has succeeded at another endpoint."""
        if charge.trial:
            return
        self._evidence.confirm(charge, now)
        self._judge(now)

    def excuse(self, now: float, charge: Charge) -> None:
        """The request of this failure has failed at another endpoint."""
        if not charge.trial:
            self._evidence.excuse(charge)
        elif self._state is State.OPEN and self._evidence.lively(now):
            self._until = now  # it was no trial of the endpoint: the next call makes one
            self._streak = max(0, self._streak - 1)

    def on_neutral(self, now: float, permit: int) -> None:
        """A call ended in a way that says nothing about the endpoint, or was cancelled."""
        if self._state is State.HALF_OPEN and permit == self._permit:
            self._until = now

    def warn(self, until: float) -> None:
        """Another one, of the same endpoint, has opened: until then fewer failures in a row are enough here."""
        self._warned_until = until

    def trip(self, now: float) -> None:
        """Open on another component's judgement, such as a probe's."""
        self._move(Event.TRIPPED, now)

    def back(self, now: float) -> None:
        """The endpoint was gone and is back: the trial may come now, and its past counts no more."""
        if self._state is State.OPEN:
            self._until = min(self._until, now)
            self.opened_by_one_death = False
        elif self._state is State.CLOSED:
            self.forget()
            self._renew()

    def give_way(self, now: float, source: RequestSource | None) -> bool:
        """Close for a call that is not among those which opened it on thin evidence (None: there is one); whether it did."""
        if not self.would_give_way(source):
            return False
        self._doubt(now)
        return True

    def would_give_way(self, source: RequestSource | None) -> bool:
        """What `give_way` would do."""
        return self._suspects is not None and not (source is not None and self._suspects.include(source))

    @property
    def opened_on_thin_evidence(self) -> bool:
        """Whether it is not closed, and only one tenant or a few requests have failed here."""
        return self._suspects is not None

    @property
    def answered_at(self) -> float:
        """When a call ended well here last."""
        return self._evidence.answered_at

    def forget(self) -> None:
        """Count anew."""
        self._evidence.forget()

    def ends(self, now: float) -> tuple[int, int]:
        """How many calls ended well and how many failed, of those in the window that are counted."""
        return self._evidence.ends(now)

    def state(self, now: float) -> State:
        """Return the state for metrics; an open time that is over counts as half-open, even before the next call."""
        if self._state is State.OPEN and now >= self._until:
            return State.HALF_OPEN
        return self._state

    def retry_after(self, now: float) -> float:
        """Seconds until a trial may go through; 0 when it may now."""
        return max(0.0, self._until - now) if self._state is State.OPEN else 0.0

    def _judge(self, now: float) -> None:
        if self._state is not State.CLOSED:
            return
        limit = self._rules.consecutive_failures
        if now < self._warned_until:
            limit = min(limit, WARNED_FAILURES)
        strength = self._evidence.strength(limit, now)
        if strength is Strength.NONE and not self._mostly_fails(now):
            return
        suspects = self._evidence.suspects(limit) if strength is Strength.THIN else None
        of_one_death = self._evidence.of_one_death(limit)
        self._move(Event.TRIPPED, now)
        self._suspects, self.opened_by_one_death = suspects, of_one_death

    def _doubt(self, now: float) -> None:
        self._streak = max(0, self._streak - 1)
        assert self._suspects is not None
        self._evidence.doubt(self._suspects, now + self._rules.window)
        self._move(Event.DOUBTED, now)

    def _mostly_fails(self, now: float) -> bool:
        share = self._rules.failure_share
        if share is None:
            return False
        successes, failures = self._evidence.ends(now)
        volume = successes + failures
        return volume >= self._rules.min_volume and failures >= share * volume

    def _move(self, event: Event, now: float) -> None:
        state = TRANSITIONS.get((self._state, event))
        if state is None:
            return
        self.forget()
        self.opened_by_one_death = False
        if state is State.CLOSED:  # the trial's permit goes on
            self._since, self._until = now, 0.0
            self._suspects = None
        else:
            self._renew()
        if state is State.OPEN:
            self._open(now)
        self._state = state

    def _renew(self) -> None:
        """End all permits there are."""
        self._permit += 1
        self._oldest = self._permit

    def _open(self, now: float) -> None:
        if self._state is State.CLOSED and now - self._since >= self._rules.max_open_time:
            self._streak = 0
        self._wait = self._backoff.ceiling(self._streak)
        self._until = now + self._wait
        self._streak += 1
        self.opened += 1
