"""When a worker that died is started again, and when there is no sense in it any more. No clock, no I/O."""

# A worker that lived for so long has started well: what ended it is no fault of the start.
WELL_SECONDS = 10.0
FIRST_DELAY, LONGEST_DELAY = 0.25, 30.0
# So many starts in a row without one worker that serves: then nothing is going to serve.
MOST_FAILURES = 5


class Restarts:
    """The deaths of the worker of one place. Instants are in seconds of one clock."""

    def __init__(self) -> None:
        self._quick = 0

    def delay(self, lived: float) -> float:
        """Seconds until the next start of a worker that lived for so many: at once, later and later while it dies at once."""
        self._quick = 0 if lived >= WELL_SECONDS else self._quick + 1
        if self._quick <= 1:
            return 0.0
        return min(FIRST_DELAY * 2.0 ** min(self._quick - 2, 16), LONGEST_DELAY)  # a power of 1,024 is no float


class Failures:
    """Starts in a row, at all places, after which no worker served."""

    def __init__(self) -> None:
        self._failed = 0

    def served(self) -> None:
        """A worker has started to serve."""
        self._failed = 0

    def failed(self) -> bool:
        """A worker ended before it served; whether that is to be given up."""
        self._failed += 1
        return self._failed >= MOST_FAILURES
