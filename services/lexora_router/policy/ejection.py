"""Which endpoints of a pool sit out for a while, so that a bad one costs few calls and a bad day never empties the pool."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class Reason(StrEnum):
    """Why an endpoint is ejected, the surest first."""

    BREAKER_OPEN = "breaker_open"
    NO_TOKENS = "no_tokens"
    FAILURE_SHARE = "failure_share"


_RANK = {reason: rank for rank, reason in enumerate(Reason)}


@dataclass(frozen=True, slots=True)
class Signals:
    """What is known of one endpoint: the ends of its latest calls, its breaker, and how many seconds it has been silent.

    Silence is the age of the oldest wait for a token among the calls in flight, 0 when none waits: a frozen engine whose
    health check still answers shows in nothing else. Ends should be counted anew after an ejection, or an endpoint that
    returns is judged by what it was ejected for. `back`: since its last ejection it was gone and came again, which ends it.
    """

    successes: int = 0
    failures: int = 0
    breaker_open: bool = False
    silence: float = 0.0
    back: bool = False


@dataclass(frozen=True, slots=True)
class EjectionRules:
    """When and for how long: at most `max_ejection_percent` of the pool at a time, and never all of it.

    For a `failure_share` over at least `min_volume` calls, an open breaker, or `max_silence` seconds without a token. The nth
    ejection lasts n times `base_time` seconds, at most `max_time`; each `forgive_after` seconds of good conduct forgive one.
    """

    max_ejection_percent: int = 50
    failure_share: float = 0.5
    min_volume: int = 20
    max_silence: float = 30.0
    base_time: float = 15.0
    max_time: float = 300.0
    forgive_after: float = 60.0


@dataclass(frozen=True, slots=True)
class Ejection:
    """An endpoint sits out until `until` (monotonic seconds), for the `count`th time."""

    key: str
    reason: Reason
    until: float
    count: int


@dataclass(frozen=True, slots=True)
class Judgement:
    """What changed: endpoints that are out from now on, and those that are back (and start slowly)."""

    ejected: tuple[Ejection, ...]
    returned: tuple[str, ...]


@dataclass(slots=True)
class _Record:
    out: bool = False
    until: float = 0.0  # end of the last ejection
    count: int = 0


class Ejector:
    """The ejections of one pool. Call `judge` every second or so, and when a breaker opens; it is not for the hot path."""

    def __init__(self, rules: EjectionRules = EjectionRules()) -> None:
        self._rules = rules
        self._records: dict[str, _Record] = {}

    def follow(self, rules: EjectionRules) -> None:
        """Go on under other rules; endpoints that are out stay so until their time is over."""
        self._rules = rules

    def judge(self, pool: Mapping[str, Signals], now: float) -> Judgement:
        """Decide anew about the pool as it is: endpoints by key, with what is known of each. Absent ones are forgotten."""
        self._records = {key: self._records.get(key) or _Record() for key in pool}
        most = most_ejected(len(pool), self._rules.max_ejection_percent)
        returned = self._release(pool, most, now)
        room = most - len(self.ejected(now))
        suspects = []
        for key, signals in pool.items():
            found = None if self._records[key].out or key in returned else self._charge(signals)
            if found is not None:
                suspects.append((*found, key))
        suspects.sort(key=lambda suspect: (_RANK[suspect[0]], -suspect[1], suspect[2]))
        return Judgement(tuple(self._eject(key, reason, now) for reason, _, key in suspects[:room]), tuple(returned))

    def is_ejected(self, key: str, now: float) -> bool:
        """Whether this endpoint sits out now."""
        record = self._records.get(key)
        return record is not None and record.out and now < record.until

    def ejected(self, now: float) -> list[str]:
        """Keys of the endpoints that sit out now."""
        return [key for key in self._records if self.is_ejected(key, now)]

    def _charge(self, signals: Signals) -> tuple[Reason, float] | None:
        """What speaks against an endpoint, and how strongly, or None."""
        rules = self._rules
        volume = signals.successes + signals.failures
        if signals.breaker_open:
            return Reason.BREAKER_OPEN, signals.silence
        if signals.silence >= rules.max_silence:
            return Reason.NO_TOKENS, signals.silence
        if volume > 0 and volume >= rules.min_volume and signals.failures >= rules.failure_share * volume:
            return Reason.FAILURE_SHARE, signals.failures / volume
        return None

    def _release(self, pool: Mapping[str, Signals], most: int, now: float) -> list[str]:
        """Take back those whose time is over, and the next ones too when the pool has become too small to miss them."""
        for key, record in self._records.items():
            if pool[key].back:
                record.until = min(record.until, now)
        out = sorted((record.until, key) for key, record in self._records.items() if record.out)
        over = sum(until <= now for until, _ in out)
        returned = [key for _, key in out[: max(over, len(out) - most)]]
        for key in returned:
            record = self._records[key]
            record.out = False
            record.until = min(record.until, now)
        return returned

    def _eject(self, key: str, reason: Reason, now: float) -> Ejection:
        record, rules = self._records[key], self._rules
        forgiven = int(max(0.0, now - record.until) / rules.forgive_after)
        record.count = max(0, record.count - forgiven) + 1
        record.until = now + min(rules.base_time * record.count, rules.max_time)
        record.out = True
        return Ejection(key, reason, record.until, record.count)


def most_ejected(endpoints: int, percent: int) -> int:
    """How many of a pool may sit out at a time: the percentage rounded down, and at least one endpoint stays."""
    return max(0, min(endpoints * percent // 100, endpoints - 1))
