"""How late the event loop is: the time that anything on it waits for what is before it."""

import asyncio
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Histogram

INTERVAL_SECONDS = 0.25
LAG_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)


class LoopLag:
    """Sleeps for a short time again and again, and counts how much longer it took. `clock` is monotonic, in seconds."""

    def __init__(self, registry: CollectorRegistry, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lag = Histogram(
            "lexora_event_loop_lag_seconds",
            "How much later than asked a timer of the event loop fired.",
            buckets=LAG_BUCKETS,
            registry=registry,
        )

    async def run(self) -> None:
        """Measure until cancelled."""
        while True:
            due = self._clock() + INTERVAL_SECONDS
            await asyncio.sleep(INTERVAL_SECONDS)
            self._lag.observe(max(self._clock() - due, 0.0))
