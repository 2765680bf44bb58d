"""`concurrency: auto`: what is seen of one endpoint, handed to the policy that decides how many attempts it may have."""

from lexora_router.leases.slots import EndpointLease
from lexora_router.policy.concurrency import STALE_SCRAPES, AdaptiveLimit, EngineLoad

# A unary answer's time is that of all its tokens. It counts only while there are no first tokens of streams.
UNARY_AFTER_SECONDS = 10.0
START = 16


class AutoLimit:
    """The moving limit of one endpoint, within `least` and `most`. Instants are seconds of the monotonic clock.

    `scrape_interval` is in seconds; `engine` is what the engine last said of itself, None before the first scrape.
    """

    def __init__(self, least: int, most: int, scrape_interval: float, start: int = START) -> None:
        self._stale_after = STALE_SCRAPES * scrape_interval
        self._policy = AdaptiveLimit(initial=start, least=least, most=most, scrape_interval=scrape_interval)
        self._streamed_at = float("-inf")
        self.engine: EngineLoad | None = None

    @property
    def limit(self) -> int:
        """Attempts that may be in flight now."""
        return self._policy.limit

    def heard(self, now: float) -> EngineLoad | None:
        """What the engine says of itself; None when that was never, or too long ago."""
        engine = self.engine
        return engine if engine is not None and now - engine.at <= self._stale_after else None

    def answered(self, seconds: float, in_flight: int, now: float, *, streamed: bool) -> bool:
        """An attempt's first token, or whole unary answer, came after `seconds`; True when the limit has grown.

        `in_flight` counts the attempts at its dispatch, itself included.
        """
        if streamed:
            self._streamed_at = now
        elif now - self._streamed_at < UNARY_AFTER_SECONDS:
            return False
        before = self._policy.limit
        self._policy.first_token(seconds, in_flight, now)
        return self._policy.limit > before

    def refused(self, dispatched: float, now: float) -> None:
        """The engine answered 429 or 503 to an attempt dispatched at that instant."""
        self._policy.refused(dispatched, now)

    def scraped(self, load: EngineLoad) -> None:
        """The engine's own numbers arrived."""
        self.engine = load
        self._policy.scraped(load)


class SharedAutoLimit(AutoLimit):
    """A moving limit over all replicas: this one sees a part of the calls, but the company of all."""

    def __init__(self, lease: EndpointLease, least: int, most: int, scrape_interval: float, start: int = START) -> None:
        super().__init__(least, most, scrape_interval, start)
        self._lease = lease

    def answered(self, seconds: float, in_flight: int, now: float, *, streamed: bool) -> bool:
        """See AutoLimit; `in_flight` counts those of this replica."""
        return super().answered(seconds, in_flight + self._lease.elsewhere, now, streamed=streamed)
