"""How the exchanges with the store went."""

from collections import Counter
from collections.abc import Iterable

from lexora_router.state.port import Ask

BOUNDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1)


class Tally:
    """Since the start. `seconds` counts exchanges by how long they took: below each of BOUNDS, and above all."""

    def __init__(self) -> None:
        self.failed = 0
        self.total_seconds = 0.0
        self.seconds = [0] * (len(BOUNDS) + 1)
        self.requests = Counter[str]()  # by program

    @property
    def answered(self) -> int:
        """Exchanges that were answered."""
        return sum(self.seconds)

    def add(self, seconds: float, asks: Iterable[Ask]) -> None:
        """Count one that was answered."""
        self.total_seconds += seconds
        self.seconds[next((place for place, bound in enumerate(BOUNDS) if seconds <= bound), len(BOUNDS))] += 1
        for ask in asks:
            self.requests[ask.program] += 1
