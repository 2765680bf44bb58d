"""Requests that fail wherever they go are refused for a while, so that they cost engines nothing.

A request is known by a fingerprint of its path and body, which is taken only of those that fail, and of those that have the
length of one that did. Each has a breaker of its own: failures in a row open it, a trial after a while decides, and each failed
trial keeps it open for longer. Failures count against a request where the endpoint passes its probes, and the request has
failed at another endpoint as well or this endpoint has answered others since. What fails at one moment, as all calls of an
engine that dies, is one failure. While no endpoint answers anything, a dead pool looks like requests at fault, as that of a
monitor, which is ever the same: one that was closed out then has its trial as soon as others are answered.
"""

from collections import Counter, OrderedDict
from dataclasses import dataclass, field, replace

from lexora_router.policy.breaker import Breaker, BreakerRules, State

# An engine that a request has killed may take minutes to come back, and must not meet the request as a new one then.
MEMORY_SECONDS = 900.0
MAX_REQUESTS = 1000
# Of longer bodies the beginning and the end are looked at: a failure may not hold up the event loop.
SAMPLE_BYTES = 131_072


def fingerprint(path: str, body: bytes) -> int:
    """A number for this request, different in each process, so that no client can make a body with another one's number."""
    if len(body) <= 2 * SAMPLE_BYTES:
        return hash((path, body))
    return hash((path, len(body), body[:SAMPLE_BYTES], body[-SAMPLE_BYTES:]))


@dataclass(slots=True)
class _Record:
    breaker: Breaker
    size: int
    first: float  # of the failures in a row
    last: float
    endpoints: set[str] = field(default_factory=set)
    failures: int = 0  # one after the other
    good: bool = False  # it has succeeded since it is known
    alone: bool = False  # it was closed out while nothing at all was answered

    def start_over(self, now: float) -> None:
        """The failures in a row end here."""
        self.first = now
        self.failures = 0
        self.endpoints.clear()
        self.alone = False

    def revived(self, pool_answered_at: float) -> bool:
        """Whether others are answered again since it failed in a pool that answered nothing."""
        return self.alone and pool_answered_at > self.last


class Quarantine:
    """The requests of one backend that fail. Rules say how many failures in a row close it out, and for how long.

    Memory is bounded: of more than `most` requests those that failed last are known; 0: no request is ever refused.
    """

    def __init__(self, rules: BreakerRules, *, most: int = MAX_REQUESTS) -> None:
        self._rules = replace(rules, failure_share=None)
        self._most = most
        self._records: OrderedDict[int, _Record] = OrderedDict()  # those that failed last at the end
        self.sizes: Counter[int] = Counter()  # of known requests, in bytes

    def follow(self, rules: BreakerRules, *, most: int = MAX_REQUESTS) -> None:
        """Go on under other rules."""
        self._rules, self._most = replace(rules, failure_share=None), most
        if not most:
            self._records.clear()
            self.sizes.clear()
        for record in self._records.values():
            record.breaker.follow(self._rules)

    def wait(self, request: int, now: float, pool_answered_at: float) -> float:
        """Seconds for which the request is refused; 0 when it may go. `pool_answered_at`: when any endpoint answered, last."""
        record = self._records.get(request)
        if record is None or record.breaker.ready(now) or record.revived(pool_answered_at):
            return 0.0
        return record.breaker.retry_after(now) or self._rules.open_time  # 0 while another one is its trial

    def begin(self, request: int, now: float, pool_answered_at: float) -> int:
        """The request is let in: a permit for `succeeded`, `failed` or `left`, 0 when it is not known."""
        record = self._records.get(request)
        if record is None:
            return 0
        if record.revived(pool_answered_at):
            record.alone = False
            record.breaker.back(now)
        return record.breaker.allow(now)

    def suspects(self, request: int) -> bool:
        """Whether it has failed in more places, or more often, than an endpoint could be blamed for."""
        record = self._records.get(request)
        if record is None:
            return False
        often = record.failures >= self._rules.consecutive_failures
        return record.breaker.opened > 0 if often else len(record.endpoints) > 1 and not record.good

    def answered_lately(self, request: int) -> bool:
        """Whether it has been answered, and has not failed too often since to be above suspicion."""
        record = self._records.get(request)
        return record is not None and record.good and record.failures < self._rules.consecutive_failures

    def failed(
        self,
        request: int,
        size: int,
        endpoint: str,
        now: float,
        *,
        began: float,
        permit: int = 0,
        vouched: bool,
        answered_at: float,
        pool_answered_at: float,
        fatal: bool,
        heard: bool = False,
    ) -> bool:
        """An attempt that `began` then has failed; whether the request is refused from now on, and was not before.

        `vouched`: the endpoint passes its probes; `answered_at`: when it answered any request well, last, and
        `pool_answered_at` when any endpoint did. One that is `fatal`
        (the engine broke under it) is closed out by the second endpoint, before it has broken them all. An endpoint that was
        `heard` (it had given tokens) was well with the request, and is not one where it fails.
        """
        if not self._most:
            return False
        record = self._record(request, size, now)
        if not record.failures:
            record.first = now
        elif began < record.last:
            return False
        record.failures += 1
        if not heard:
            record.endpoints.add(endpoint)
        record.last = now
        everywhere = len(record.endpoints) > 1
        if not vouched or not (everywhere or answered_at > record.first):
            return False
        before = record.breaker.opened
        self._charge(record, now, permit, fatal=fatal and everywhere, alone=pool_answered_at <= record.first)
        return record.breaker.opened > before == 0

    def _charge(self, record: _Record, now: float, permit: int, *, fatal: bool, alone: bool) -> None:
        """Count a failure that is the request's fault."""
        breaker = record.breaker
        if breaker.state(now) is not State.CLOSED:
            breaker.on_failure(now, permit)
        elif record.failures >= self._rules.consecutive_failures or (fatal and not record.good):
            breaker.trip(now)
            record.alone = alone

    def succeeded(self, request: int, now: float, permit: int) -> None:
        """It has been answered."""
        record = self._records.get(request)
        if record is None:
            return
        record.good = True
        record.start_over(now)
        record.breaker.on_success(now, permit)

    def absolve(self, request: int, now: float) -> None:
        """Another endpoint has begun to answer it: what came before was no fault of the request."""
        record = self._records.get(request)
        if record is not None:
            record.start_over(now)

    def left(self, request: int, now: float, permit: int) -> None:
        """It ended in a way that says nothing."""
        record = self._records.get(request)
        if record is not None:
            record.breaker.on_neutral(now, permit)

    def held(self, now: float) -> int:
        """How many requests are refused now."""
        return sum(not record.breaker.ready(now) for record in self._records.values())

    def _record(self, request: int, size: int, now: float) -> _Record:
        record = self._records.get(request)
        if record is None:
            self.sizes[size] += 1
            record = self._records[request] = _Record(Breaker(self._rules), size, now, now)
        self._records.move_to_end(request)
        while len(self._records) > self._most or next(iter(self._records.values())).last < now - MEMORY_SECONDS:
            _, old = self._records.popitem(last=False)
            self.sizes[old.size] -= 1
            if not self.sizes[old.size]:
                del self.sizes[old.size]
        return record
