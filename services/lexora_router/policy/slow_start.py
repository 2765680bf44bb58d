"""A recovered endpoint comes back gradually: its caches are cold, and whatever broke it may not be over."""

from dataclasses import dataclass
from math import pow


@dataclass(frozen=True, slots=True)
class SlowStart:
    """Over `window` seconds the weight grows to 1, from `minimum` on; a window of 0 is no slow start.

    `aggression` 1 is a straight line. Above 1 the weight grows fast first, below 1 late. Raises ValueError for a minimum
    outside (0, 1], an aggression that isn't positive or a window that is negative.
    """

    window: float = 30.0
    aggression: float = 1.0
    minimum: float = 0.1

    def __post_init__(self) -> None:
        if not (0 < self.minimum <= 1 and self.aggression > 0 and self.window >= 0):
            raise ValueError(f"impossible slow start: {self}")

    def weight(self, recovered_at: float | None, now: float) -> float:
        """Weight of an endpoint that recovered at that time (None: was never away), above 0 and up to 1."""
        if recovered_at is None:
            return 1.0
        age = max(0.0, now - recovered_at)
        if age >= self.window:
            return 1.0
        return max(self.minimum, pow(age / self.window, 1 / self.aggression))
