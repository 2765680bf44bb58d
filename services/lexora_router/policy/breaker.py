"""A circuit breaker: when to stop asking an endpoint that fails, and when to try it again.

Closed, all calls go through and their ends are counted. Open, none goes. After a while it is half-open: one call, the trial,
goes through, and its end decides. The next open time is longer, until the endpoint has stayed closed for a while.

The caller says what an end means. A failure is the endpoint's fault: no connection, a broken or empty answer, silence, a 5xx.
Neutral is everything that says nothing about its health: 4xx (the client's fault), 429 and 503 (it is alive and busy), a
cancelled call. Neutral ends neither open a breaker nor close it; a neutral trial makes way for the next one.
"""

from dataclasses import dataclass
from enum import Enum, StrEnum, auto

from lexora_router.policy.backoff import Backoff
from lexora_router.policy.sliding_pair import SlidingPair


class State(StrEnum):
    """Whether calls go through."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class Event(Enum):
    """What moves a breaker."""

    TRIPPED = auto()  # too many failures, or somebody else's judgement
    WAITED = auto()  # the open time is over
    TRIAL_PASSED = auto()
    TRIAL_FAILED = auto()


TRANSITIONS: dict[tuple[State, Event], State] = {
    (State.CLOSED, Event.TRIPPED): State.OPEN,
    (State.OPEN, Event.WAITED): State.HALF_OPEN,
    (State.HALF_OPEN, Event.TRIAL_PASSED): State.CLOSED,
    (State.HALF_OPEN, Event.TRIAL_FAILED): State.OPEN,
    (State.HALF_OPEN, Event.TRIPPED): State.OPEN,
}
"""All moves there are: an event that has no line here leaves the state as it is."""


@dataclass(frozen=True, slots=True)
class BreakerRules:
    """When to open, and for how long.

    Opens after `consecutive_failures`, or when at least `failure_share` of `min_volume` calls or more within `window` seconds
    failed. Stays open for `open_time` seconds, each time `growth` times longer, up to `max_open_time`; after that long closed
    without a break it starts over.
    """

    consecutive_failures: int = 5
    failure_share: float = 0.5
    min_volume: int = 20
    window: float = 10.0
    open_time: float = 5.0
    growth: float = 2.0
    max_open_time: float = 60.0


class Breaker:
    """The breaker of one endpoint.

    `allow` gives a permit, to be handed back with the end of the call. Permits end with the state they were given in: calls
    that began before the breaker opened don't decide about the trial.
    """

    __slots__ = (
        "_backoff",
        "_counts",
        "_failures",
        "_permit",
        "_rules",
        "_since",
        "_state",
        "_streak",
        "_trial",
        "_until",
        "opened",
    )

    def __init__(self, rules: BreakerRules = BreakerRules()) -> None:
        self._rules = rules
        self._backoff = Backoff(rules.open_time, rules.growth, rules.max_open_time)
        self._counts = SlidingPair(rules.window)  # successes, failures
        self._state = State.CLOSED
        self._since = 0.0  # when it closed last
        self._until = 0.0  # when the open time ends
        self._failures = 0  # one after the other
        self._streak = 0  # open times without a good while between them
        self._permit = 1
        self._trial = False
        self.opened = 0  # times, ever

    def follow(self, rules: BreakerRules) -> None:
        """Go on under other rules: the state stays, and the counts too unless they are taken over another window."""
        if rules.window != self._rules.window:
            self._counts = SlidingPair(rules.window)
        self._rules = rules
        self._backoff = Backoff(rules.open_time, rules.growth, rules.max_open_time)

    def allow(self, now: float) -> int:
        """Ask for a call to go through: a permit, or 0. Half-open, the caller of the one permit holds the trial."""
        if self._state is State.CLOSED:
            return self._permit
        if not self.ready(now):
            return 0
        self._move(Event.WAITED, now)
        self._trial = True
        self._permit += 1
        return self._permit

    def ready(self, now: float) -> bool:
        """Whether `allow` would give a permit, without asking for it."""
        if self._state is State.OPEN:
            return now >= self._until
        return not self._trial

    def on_success(self, now: float, permit: int) -> None:
        """A call did well. Say so at its first token: a long answer must not keep the others waiting for the trial's end.

        If it fails later, `on_failure` with the same permit counts too, unless it was the trial.
        """
        if permit != self._permit:
            return
        if self._state is State.HALF_OPEN:
            self._move(Event.TRIAL_PASSED, now)
            return
        self._failures = 0
        self._counts.add(now, 1, 0)

    def on_failure(self, now: float, permit: int) -> None:
        """A call failed, and it was the endpoint's fault."""
        if permit != self._permit:
            return
        if self._state is State.HALF_OPEN:
            self._move(Event.TRIAL_FAILED, now)
            return
        self._failures += 1
        self._counts.add(now, 0, 1)
        if self._failures >= self._rules.consecutive_failures or self._mostly_fails(now):
            self._move(Event.TRIPPED, now)

    def on_neutral(self, now: float, permit: int) -> None:
        """A call ended in a way that says nothing about the endpoint, or was cancelled."""
        if permit == self._permit and self._trial:
            self._trial = False
            self._permit += 1

    def trip(self, now: float) -> None:
        """Open on somebody else's judgement, such as a probe's."""
        self._move(Event.TRIPPED, now)

    def back(self, now: float) -> None:
        """The endpoint was gone and is back: the trial may come now, and what its past says of it counts no more."""
        if self._state is State.OPEN:
            self._until = min(self._until, now)
        elif self._state is State.CLOSED:
            self._failures = 0
            self._counts.clear()
            self._permit += 1

    def state(self, now: float) -> State:
        """Return the state for metrics; an open time that is over counts as half-open, though nobody has asked yet."""
        if self._state is State.OPEN and now >= self._until:
            return State.HALF_OPEN
        return self._state

    def retry_after(self, now: float) -> float:
        """Seconds until a trial may go through; 0 when it may now."""
        return max(0.0, self._until - now) if self._state is State.OPEN else 0.0

    def _mostly_fails(self, now: float) -> bool:
        successes, failures = self._counts.totals(now)
        volume = successes + failures
        return volume >= self._rules.min_volume and failures >= self._rules.failure_share * volume

    def _move(self, event: Event, now: float) -> None:
        state = TRANSITIONS.get((self._state, event))
        if state is None:
            return
        if state is State.OPEN:
            self._open(now)
        elif state is State.CLOSED:
            self._since = now
            self._failures = 0
            self._counts.clear()
        self._state = state
        self._trial = False
        self._permit += 1

    def _open(self, now: float) -> None:
        if self._state is State.CLOSED and now - self._since >= self._rules.max_open_time:
            self._streak = 0
        self._until = now + self._backoff.ceiling(self._streak)
        self._streak += 1
        self.opened += 1
