"""Which endpoints of a backend sit out: those that fail more than the others, and those that have gone silent."""

from collections.abc import Collection

from lexora_router.call import Call
from lexora_router.fleet.slots import Slots
from lexora_router.fleet.stalls import MIN_OVERDUE, Listener, overdue_at, silences
from lexora_router.policy.ejection import EjectionRules, Ejector
from lexora_router.policy.usual_time import UsualTime, UsualTimes


def kind_of_call(call: Call) -> tuple[str, str, int]:
    """What unary calls that take about as long have in common."""
    most = -1 if call.max_tokens is None else call.max_tokens.bit_length()
    return call.path, call.target.model if call.target is not None else call.model, most


class Outliers:
    """Judges the endpoints by how they do beside each other; `running` are the calls that hold a slot."""

    def __init__(self, slots: Slots, running: Collection[Listener], rules: EjectionRules) -> None:
        self._slots = slots
        self._running = running
        self._ejector = Ejector(rules)
        self.max_silence = rules.max_silence  # in seconds; no answer is overdue before that
        self._usual = UsualTimes()  # of unary answers
        self._silent: dict[str, float] = {}  # by address: since when, as of the last judgement
        self.gone_silent: frozenset[str] = frozenset()  # addresses where several calls are overdue, as of the last judgement

    def follow(self, rules: EjectionRules) -> None:
        """Go on under other rules."""
        self._ejector.follow(rules)
        self.max_silence = rules.max_silence

    def usual_time(self, call: Call) -> UsualTime:
        """How long unary answers of this kind take: to be added to when this one is here."""
        return self._usual.of(kind_of_call(call))

    def judge(self, now: float) -> bool:
        """Eject outliers, and take back those whose time is over; whether any has changed. At most once a second."""
        endpoints = self._slots.endpoints
        if len(endpoints) <= 1:
            self.gone_silent = frozenset()
            return False
        by_address = {endpoint.address: endpoint for endpoint in endpoints}
        # Silence goes on when those that waited have left and others wait: clients may be less patient than we are.
        self._silent = {
            key: max(min(now - seconds, self._silent.get(key, now)), by_address[key].condition.heard_at)
            for key, seconds in silences(self._running, now).items()
            if key in by_address
        }
        self.gone_silent = frozenset(
            key
            for key, calls in overdue_at(self._running).items()
            if calls >= MIN_OVERDUE and now - self._silent.get(key, now) >= self.max_silence
        )
        signals = {key: each.condition.signals(now, now - self._silent.get(key, now)) for key, each in by_address.items()}
        verdict = self._ejector.judge(signals, now)
        for ejection in verdict.ejected:
            by_address[ejection.key].condition.eject(ejection.until, f"ejected: {ejection.reason}")
        for key in verdict.returned:
            by_address[key].condition.returned(now)
        return bool(verdict.ejected or verdict.returned)
