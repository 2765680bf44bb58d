"""What is known of one endpoint's health, from probes and from calls, and what follows: may it serve, and how much."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from lexora_router.call import Outcome
from lexora_router.policy.breaker import Breaker, BreakerRules, State
from lexora_router.policy.ejection import Signals
from lexora_router.policy.evidence import Charge, RequestSource
from lexora_router.policy.sliding_pair import SlidingPair
from lexora_router.policy.slow_start import SlowStart

# Up to this share of failed ends an endpoint counts as sound: what a retry finds there is most likely an answer.
SOUND_SHARE = 0.1


@dataclass(frozen=True, slots=True)
class HealthRules:
    """When an endpoint is taken for bad, and how it comes back; `failed_probes` in a row take one out that was well."""

    breaker: BreakerRules
    slow_start: SlowStart
    failed_probes: int = 3


class Condition:
    """The condition of one endpoint. Instants are seconds of the monotonic clock.

    `in_flight` counts the attempts under way, also those that began under an earlier configuration. `healthy` is the last
    word of probes and connections (None before the first), and `reason` says why it is not. `suspect` is set when calls find
    that something is wrong; a probe is to say what it is.
    """

    def __init__(self, rules: HealthRules) -> None:
        self._rules = rules
        self._breaker = Breaker(rules.breaker)
        # Whether calls may go here when no endpoint of the pool is available: a down probe is a guess, a breaker is not.
        self.may_serve: Callable[[float], bool] = self._breaker.ready
        self._refusals = SlidingPair(rules.breaker.window)  # busy
        self._faults = SlidingPair(rules.breaker.window)  # all of them, also those that are blamed on their requests
        self._recovered_at: float | None = None
        self._ejected_until = 0.0
        self._back = False  # since the last ejection it was gone, and came again
        self._failed_probes = 0  # one after the other
        self.ejections = 0  # times that it was ejected
        self._opened = 0  # times that the breaker had opened when it was looked at last
        self.suspect = asyncio.Event()
        self.healthy: bool | None = None
        self.logged: bool | None = None  # the state that was logged last; a call may have found a change before the probe
        self.reason = ""
        self.in_flight = 0
        self.heard_at = 0.0  # when something came from it last

    def follow(self, rules: HealthRules) -> None:
        """Go on under other rules."""
        if rules.breaker.window != self._rules.breaker.window:
            self._refusals = SlidingPair(rules.breaker.window)
            self._faults = SlidingPair(rules.breaker.window)
        self._rules = rules
        self._breaker.follow(rules.breaker)

    @property
    def failures_that_open(self) -> int:
        """Failures in a row that open the breaker."""
        return self._rules.breaker.consecutive_failures

    def available(self, now: float) -> bool:
        """Whether calls should go here."""
        return self.healthy is not False and now >= self._ejected_until and self._breaker.ready(now)

    def retry_after(self, now: float) -> float:
        """Seconds until the breaker lets a trial through; 0 when it would now, or when one is under way."""
        return self._breaker.retry_after(now)

    def obstacle(self, now: float) -> str:
        """Why calls should not go here, for people; empty when they should."""
        if not self._breaker.ready(now):
            wait = self._breaker.retry_after(now)
            return f"breaker open, a trial in {wait:.1f} s" if wait else "breaker half-open, its trial is under way"
        if self.healthy is False:
            return f"down: {self.reason or 'it does not answer'}"
        if now < self._ejected_until:
            return f"{self.reason or 'ejected'}, for {self._ejected_until - now:.1f} s more"
        return ""

    def sound(self, now: float) -> bool:
        """Whether a call that has failed elsewhere may count on it: nearly all that ended here lately was good, if anything."""
        good, fault = self._breaker.ends(now)
        bad = max(fault, self._faults.totals(now)[0]) + self._refusals.totals(now)[0]
        return not self.doubtful and bad <= SOUND_SHARE * (good + bad)

    def weight(self, now: float) -> float:
        """Share of the usual load, above 0 and up to 1: a recovered endpoint comes back gradually."""
        return self._rules.slow_start.weight(self._recovered_at, now)

    def begin(self, now: float) -> int:
        """An attempt begins; the permit goes back with its end."""
        return self._breaker.allow(now)

    def answered(self, permit: int, now: float) -> None:
        """The attempt's first token is here: a trial has passed with it, and any attempt will count by its end."""
        self.heard_at = now
        if self._breaker.on_first_token(now, permit):
            self._recovered_at = now

    def ended(self, permit: int, outcome: Outcome, now: float, tenant: str = "") -> None:
        """The attempt is over."""
        if outcome is Outcome.GOOD:
            self.heard_at = now
            self._breaker.on_success(now, permit, tenant)
        elif outcome is Outcome.FAULT:
            self._breaker.on_failure(now, permit)
            self._suspect_if_opened()
        else:
            if outcome is Outcome.BUSY:
                self._refusals.add(now, 1, 0)
            self._breaker.on_neutral(now, permit)

    def failed(
        self, permit: int, now: float, source: RequestSource, *, excused: bool, broke: float | None = None
    ) -> Charge | None:
        """The attempt had a fault that may be its request's; excused: it is known to be. What is given back waits for that.

        `broke` is when the attempt began, where the engine seems to have broken under it.
        """
        self._faults.add(now, 1, 0)
        charge = self._breaker.on_failure(now, permit, source, excused=excused, broke=broke)
        self._suspect_if_opened()
        return charge

    def confirm(self, charge: Charge, now: float) -> None:
        """The request has succeeded at another endpoint."""
        self._breaker.confirm(now, charge)
        self._suspect_if_opened()

    def excuse(self, charge: Charge, now: float) -> None:
        """The request has failed at another endpoint, too."""
        self._breaker.excuse(now, charge)

    @property
    def opened(self) -> int:
        """Times that its breaker has opened."""
        return self._breaker.opened

    def warned(self, now: float, *, of_failures: bool) -> None:
        """Another replica has found something wrong with it: a probe is to look now; `of_failures`: calls failed there."""
        if of_failures:
            self._breaker.warn(now + self._rules.breaker.window)
        self.suspect.set()

    @property
    def answered_at(self) -> float:
        """When a call ended well here last."""
        return self._breaker.answered_at

    @property
    def vouched(self) -> bool:
        """Whether its probes say that it is well."""
        return self.healthy is True and self._failed_probes == 0

    @property
    def out_on_thin_evidence(self) -> bool:
        """Whether its breaker is open only because one tenant or a few requests failed here, and no others have been asked."""
        return self._breaker.opened_on_thin_evidence

    def would_give_way(self, source: RequestSource) -> bool:
        """Whether `give_way` would let a call of this source in."""
        return self._breaker.would_give_way(source)

    def give_way(self, source: RequestSource | None, now: float) -> None:
        """Let in a call of a source that had no part in that; None: there is one."""
        if self._breaker.give_way(now, source) and self.healthy is not False:
            self._ejected_until = 0.0
            self.reason = ""

    @property
    def doubtful(self) -> bool:
        """Whether it was well until probes began to fail, which are too few yet to take it out."""
        return self.healthy is True and self._failed_probes > 0

    def probed(self, reason: str, now: float, *, sure: bool) -> None:
        """What a probe found: what is wrong, empty when nothing is; `sure` when no call can do better than the probe.

        One that is not known to be well gets no benefit of the doubt.
        """
        missed, self._failed_probes = self._failed_probes, self._failed_probes + 1 if reason else 0
        # The calls of an engine that was gone between two probes have opened its breaker, or it missed one of them.
        if not reason and self.healthy and self.breaker_open(now) and (missed or self._breaker.opened_by_one_death):
            self._came_back(now)
        if sure or not self.doubtful or self._failed_probes >= self._rules.failed_probes:
            self.found(healthy=not reason, reason=reason, now=now)

    def found(self, *, healthy: bool, reason: str, now: float) -> None:
        """What a probe or a connection found. One that was gone and is back has most likely been started anew."""
        if healthy and self.healthy is False:
            self._came_back(now)
        elif not healthy and self.healthy:
            self.suspect.set()
        self.healthy, self.reason = healthy, reason

    def joined(self) -> None:
        """It is new beside others that are known: no calls before its first probe, and then it begins like one that is back."""
        self.healthy, self.reason = False, "new: its first probe is under way"

    def eject(self, until: float, reason: str) -> None:
        """Sit out until then, or until it was gone and is back."""
        self._ejected_until = until
        self.ejections += 1
        self._back = False
        self.reason = reason

    def returned(self, now: float) -> None:
        """Back from an ejection, and not judged again by what it was ejected for."""
        self._ejected_until = 0.0
        self._breaker.forget()
        self._faults.clear()
        self._recovered_at = now
        self.reason = self.reason if self.healthy is False else ""

    def signals(self, now: float, silence: float = 0.0) -> Signals:
        """What the ejector looks at; `silence` in seconds."""
        good, fault = self._breaker.ends(now)
        return Signals(
            successes=good,
            failures=fault,
            breaker_open=self.breaker_open(now),
            silence=silence,
            back=self._back,
        )

    def breaker_state(self, now: float) -> State:
        """State of the circuit breaker."""
        return self._breaker.state(now)

    def breaker_open(self, now: float) -> bool:
        """Whether the circuit breaker lets no call through, not even a trial."""
        return self._breaker.state(now) is State.OPEN

    def _came_back(self, now: float) -> None:
        self._back = True
        self._breaker.back(now)
        self.returned(now)

    def _suspect_if_opened(self) -> None:
        if self._breaker.opened != self._opened:
            self._opened = self._breaker.opened
            self.suspect.set()
