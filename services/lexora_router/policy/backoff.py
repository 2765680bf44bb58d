"""How long to wait before the next try: longer each time, up to a bound, and not all at once."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Backoff:
    """Waits of `base` seconds times `exponential_base` to the power of the tries so far, at most `max_delay` seconds."""

    base: float = 1.0
    exponential_base: float = 2.0
    max_delay: float = 30.0

    def ceiling(self, n: int) -> float:
        """Longest wait after n earlier ones, in seconds."""
        try:
            return min(self.base * float(self.exponential_base) ** n, self.max_delay)
        except OverflowError:
            return self.max_delay

    def delay(self, n: int, random: float) -> float:
        """Wait after n earlier ones, in seconds; `random` in [0, 1) spreads it over the whole range up to the ceiling.

        Full jitter: clients that failed together come back apart, with less work in all than with a fixed part.
        """
        return random * self.ceiling(n)
