"""The adaptive concurrency limit of one endpoint (`concurrency: auto`).

Additive increase, multiplicative decrease: the one pair of linear rules with which several routers in front of one engine come
to equal shares of its capacity (Chiu and Jain, "Analysis of the increase and decrease algorithms for congestion avoidance",
1989). The limit doubles until the first sign of congestion, as TCP's does, then grows by about half its square root a round. A
gradient of latencies (Netflix's Gradient2) was not taken: its long average learns the queue of a lasting overload as the new
normal, and TTFT moves with the length of prompts, which says nothing about load.

Signs of congestion, strongest first:
- the engine refuses (429, 503): down to 0.7 at once;
- the engine says that requests wait or that its KV cache is full, in numbers not older than three scrapes: down to 0.9. Such
  numbers stand above TTFT, good or bad. They count once, and only if taken after the last change of the limit;
- without such numbers, the median TTFT of a round is more than twice what is normal: down to 0.9. If half the limit did not
  make it better, concurrency is not the reason (longer prompts, other routers): that TTFT is the new normal.

What is normal is learnt while few calls run, no more than at the start or after such a fall. With more of them only a shorter
TTFT is believed: of an engine that gets slower step by step each step looks normal after the one before.

A round is made of calls dispatched after the last change, so that each change is judged by its own effect. The limit grows only
in rounds in which it was nearly reached: an idle endpoint proves nothing.
"""

from dataclasses import dataclass
from math import isqrt
from statistics import median
from typing import Final

_BACKPRESSURE: Final = 0.7
_CONGESTED: Final = 0.9
_TOLERANCE: Final = 2.0
"""Median TTFT over the normal one that is still taken for noise."""
_NOISE: Final = 1.5
"""Median TTFT over the normal one that may be learnt: more may be the queue of a lasting overload."""
_UP: Final = 1 / 16
_DOWN: Final = 1 / 4
"""Share of the way to a longer, or shorter, median TTFT that the normal one goes."""
_SLACK: Final = 0.02
"""Seconds of TTFT that are noise whatever the ratio."""
_HELPED: Final = 0.8
"""A fall to half the limit that leaves TTFT above this share of its worst has not helped."""
_ROUND_LEAST: Final = 8
_ROUND_MOST: Final = 32
_KV_FULL: Final = 0.95
STALE_SCRAPES: Final = 3


@dataclass(frozen=True, slots=True)
class EngineLoad:
    """What a scrape of the engine's metrics said: requests waiting, KV cache in use (0 to 1), and when, in seconds."""

    waiting: float
    kv_cache_usage: float
    at: float
    running: float = 0.0  # for people; the limit follows the others


class AdaptiveLimit:
    """How many calls one endpoint may have in flight: `limit`, always within `least` and `most`.

    `scrape_interval` is in seconds; instants are seconds of one clock that does not go back.
    """

    def __init__(self, *, initial: int = 16, least: int = 1, most: int = 1024, scrape_interval: float = 5.0) -> None:
        if not 1 <= least <= most or not scrape_interval > 0:
            raise ValueError("1 <= least <= most and scrape_interval > 0 are needed")
        self.least = least
        self.most = most
        self.limit = min(max(initial, least), most)
        self._stale_after = STALE_SCRAPES * scrape_interval
        self._load: EngineLoad | None = None
        self._changed = float("-inf")  # when the limit was last decided on
        self._ttfts: list[float] = []  # of this round; at most _ROUND_MOST
        self._busiest = 0  # most calls in flight in this round
        self._normal: float | None = None  # median TTFT without congestion
        self._learnt_at = self.limit  # the value was measured with no more calls than these
        self._calmest = (most + 1, 0.0)  # fewest in flight at a dispatch of the first round, and the TTFT of that call
        self._starting = True  # no congestion seen yet
        self._fall: tuple[int, float] | None = None  # limit when TTFT got too long, and the worst median since

    def scraped(self, load: EngineLoad) -> None:
        """The engine's own numbers arrived."""
        self._load = load

    def first_token(self, ttft: float, in_flight: int, now: float) -> None:
        """A call got its first token `ttft` seconds after its dispatch, at which `in_flight` calls ran, itself included."""
        if now - ttft < self._changed:
            return  # dispatched under another limit
        self._ttfts.append(ttft)
        self._busiest = max(self._busiest, in_flight)
        if self._normal is None and in_flight < self._calmest[0]:
            self._calmest = (in_flight, ttft)
        if len(self._ttfts) >= min(max(self.limit, _ROUND_LEAST), _ROUND_MOST):
            self._decide(now)

    def refused(self, dispatched: float, now: float) -> None:
        """The engine refused a call for load (429 or 503). Other failures are the breaker's business."""
        if dispatched >= self._changed:  # one step down for all refusals of a round
            self._decrease(_BACKPRESSURE, now)

    def _decide(self, now: float) -> None:
        """End a round."""
        current = median(self._ttfts)
        load = self._fresh(now)
        if load is None:
            self._by_latency(current, now)
        elif load.at < self._changed:
            self._ttfts.clear()  # these numbers were acted upon: wait for the next, under the same limit
        elif load.waiting >= 1:
            self._decrease(_CONGESTED, now)
        elif load.kv_cache_usage >= _KV_FULL:
            self._end(now)  # full but no call waits: more would preempt, less would waste
        else:
            self._fall = None
            self._learn(current)
            self._increase(now)

    def _by_latency(self, current: float, now: float) -> None:
        if self._normal is None:
            # The endpoint may be overloaded from the first round on; the call that had the least company is the better measure.
            calm = _TOLERANCE * self._calmest[1]
            self._normal = calm if current > _TOLERANCE * calm + _SLACK else current
        if current > _TOLERANCE * self._normal + _SLACK:
            self._fall_back(current, now)
            return
        if self._fall is not None and not self._half(self._fall[0]) < self.limit <= self._fall[0]:
            self._fall = None
        self._learn(current)
        self._increase(now)

    def _fall_back(self, current: float, now: float) -> None:
        """One step down; or, where half the limit did not help, learn that this is normal."""
        start, worst = self._fall or (self.limit, current)
        self._fall = (start, max(worst, current))
        if self.limit <= self._half(start):
            if current > _HELPED * worst:
                self._fall = None
                self._normal, self._learnt_at = current, self.limit
                self._end(now)
                return
            self._fall = (self.limit, current)
        self._decrease(_CONGESTED, now)

    def _half(self, limit: int) -> int:
        return max(self.least, limit // 2)

    def _learn(self, current: float) -> None:
        """What is not congested may be normal: see above."""
        if self._normal is None:
            self._normal = current
        elif current < self._normal:
            self._normal += _DOWN * (current - self._normal)
        elif self._busiest <= self._learnt_at and current <= _NOISE * self._normal:
            self._normal += _UP * (current - self._normal)

    def _increase(self, now: float) -> None:
        step = self.limit if self._starting else max(1, isqrt(self.limit) // 2)
        if self._busiest >= 0.8 * self.limit:
            self.limit = min(self.most, self.limit + step)
        self._end(now)

    def _decrease(self, factor: float, now: float) -> None:
        self._starting = False
        self.limit = max(self.least, int(self.limit * factor))
        self._end(now)

    def _end(self, now: float) -> None:
        self._changed = now
        self._ttfts.clear()
        self._busiest = 0

    def _fresh(self, now: float) -> EngineLoad | None:
        load = self._load
        return load if load is not None and now - load.at <= self._stale_after else None
