"""Which engine made which response: an id of /v1/responses means something to the one that stored it only."""

from collections import OrderedDict
from dataclasses import dataclass

MAX_RESPONSES = 10_000
# Engines forget theirs when they restart; what is older is asked everywhere.
TTL_SECONDS = 24 * 3600.0


@dataclass(frozen=True, slots=True)
class Home:
    """Where a response was made, the model that was asked, and the name that it has there."""

    backend: str
    address: str
    model: str
    served: str


class ResponseHomes:
    """The homes of the latest responses by id: at most MAX_RESPONSES, each for TTL_SECONDS."""

    def __init__(self) -> None:
        self._homes: OrderedDict[str, tuple[Home, float]] = OrderedDict()

    def put(self, response_id: str, home: Home, now: float) -> None:
        """Remember a response; the oldest one makes room."""
        self._homes[response_id] = home, now + TTL_SECONDS
        self._homes.move_to_end(response_id)
        while len(self._homes) > MAX_RESPONSES:
            self._homes.popitem(last=False)

    def get(self, response_id: str, now: float) -> Home | None:
        """Where a response was made; None when that is not known, or not any more."""
        home, until = self._homes.get(response_id, (None, 0.0))
        return home if now < until else None
