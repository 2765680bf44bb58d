"""How many failed attempts to be let in an address may make before it has to wait.

Only failures are counted and refused: a credential that holds always passes, whatever others behind the same address do. So
guessing costs the one that guesses its time, and no one else anything.
"""

from collections import OrderedDict

from lexora_router.policy.token_bucket import TokenBucket

BURST = 20.0
PER_SECOND = 0.5
MAX_ADDRESSES = 16_384


class FailedAttempts:
    """The failures of each address, as a bucket of `burst` that fills again by `rate` per second. `now` is in seconds.

    Of more than `most` addresses the one that failed least lately is forgotten.
    """

    def __init__(self, *, rate: float = PER_SECOND, burst: float = BURST, most: int = MAX_ADDRESSES) -> None:
        self._rate = rate
        self._burst = burst
        self._most = most
        self._buckets: OrderedDict[str, TokenBucket] = OrderedDict()

    def failed(self, address: str, now: float) -> float:
        """Count a failure; 0.0 within what is allowed, else the seconds until the next one is."""
        bucket = self._buckets.get(address)
        if bucket is None:
            bucket = self._buckets[address] = TokenBucket(self._rate, self._burst, now)
            if len(self._buckets) > self._most:
                self._buckets.popitem(last=False)
        self._buckets.move_to_end(address)
        return 0.0 if bucket.take(1.0, now) else bucket.wait(1.0, now)

    def __len__(self) -> int:
        return len(self._buckets)
