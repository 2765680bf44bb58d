"""Small parts that the router's unit tests share."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf
from random import Random
from typing import Any, cast

from tests.support.clock import now

from lexora_contract.answer import Head, Reply
from lexora_contract.port import Sink
from lexora_contract.priority import NORMAL
from lexora_router.adapters.vllm import Vllm
from lexora_router.call import Call, Outcome, Target, Timeouts
from lexora_router.errors import UpstreamFailure
from lexora_router.fleet.endpoint import HttpEndpoint
from lexora_router.fleet.endpoint_health import Condition, HealthRules
from lexora_router.fleet.pool import Pool
from lexora_router.fleet.shares import Standing
from lexora_router.fleet.terms import Terms
from lexora_router.fleet.waiting import QueueLimits
from lexora_router.policy.breaker import BreakerRules
from lexora_router.policy.ejection import EjectionRules
from lexora_router.policy.quarantine import MAX_REQUESTS
from lexora_router.policy.slow_start import SlowStart

HEAD = Head(200, "text/event-stream")
TIMEOUTS = Timeouts(first_token=10.0, idle=5.0, total=100.0)
CHAT = "/v1/chat/completions"


def make_call(**changes: Any) -> Call:
    """A streamed chat call for model "m"."""
    fields: dict[str, Any] = {
        "id": "call-1",
        "path": CHAT,
        "body": b'{"model":"m","messages":[],"stream":true}',
        "content_type": "application/json",
        "model": "m",
        "stream": True,
        "started": 0.0,
    }
    return Call(**(fields | changes))


def make_target(*, timeouts: Timeouts = TIMEOUTS, backend: str = "main", model: str = "m") -> Target:
    return Target(backend, timeouts, model)


@dataclass(frozen=True, slots=True)
class Frames:
    """Events that went to a sink at once."""

    data: bytes


Event = Head | Frames | Reply


def give(call: Call, sink: Sink, event: Event) -> None:
    """Give one part of an answer to a sink, as an endpoint does."""
    call.begun = True
    if isinstance(event, Head):
        sink.head(event)
    elif isinstance(event, Frames):
        sink.frames(event.data)
    else:
        sink.reply(event)


class Client:
    """A sink that keeps what it got, and shows it to `seen`."""

    def __init__(self, seen: Callable[[Event], None] = lambda _: None) -> None:
        self.events: list[Event] = []
        self._seen = seen
        self._news = asyncio.Event()

    def head(self, head: Head) -> None:
        self._keep(head)

    def frames(self, data: bytes) -> None:
        self._keep(Frames(data))

    def reply(self, reply: Reply) -> None:
        self._keep(reply)

    def _keep(self, event: Event) -> None:
        self._seen(event)
        self.events.append(event)
        self._news.set()

    @property
    def data(self) -> bytes:
        """All frames, joined."""
        return b"".join(event.data for event in self.events if isinstance(event, Frames))

    async def got(self, count: int) -> None:
        """Return when so many events are here."""
        while len(self.events) < count:
            self._news.clear()
            await self._news.wait()


HANG = "hang"
Step = Event | float | BaseException | str


class Scripted:
    """An inner handler: gives events, sleeps floats (seconds), raises exceptions, hangs at "hang"; counts how it was left."""

    def __init__(self, *steps: Step) -> None:
        self.steps: Sequence[Step] = steps
        self.calls: list[Call] = []
        self.running = 0
        self.cancelled = 0
        self._begun = asyncio.Event()

    async def __call__(self, call: Call, sink: Sink) -> None:
        self.calls.append(call)
        self.running += 1
        self._begun.set()
        try:
            for step in self.steps:
                await self._do(step, call, sink)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.running -= 1

    async def begun(self) -> None:
        """Return when it has been called."""
        await self._begun.wait()

    async def _do(self, step: Step, call: Call, sink: Sink) -> None:
        if isinstance(step, BaseException):
            raise step
        if isinstance(step, float):
            await asyncio.sleep(step)
        elif step == HANG:
            await asyncio.sleep(1e6)
        else:
            assert not isinstance(step, str)
            give(call, sink, step)


RULES = HealthRules(BreakerRules(consecutive_failures=3, open_time=5.0), SlowStart(window=0.0))
POOL_RULES = HealthRules(BreakerRules(), SlowStart(window=0.0))


class FakeEndpoint(Scripted):
    """An endpoint whose attempts follow a script."""

    auto = None
    adapter = Vllm

    def __init__(
        self,
        *steps: Step,
        address: str = "http://e:1",
        healthy: bool | None = None,
        limit: int | None = None,
        rules: HealthRules = RULES,
    ) -> None:
        super().__init__(*steps)
        self.address = address
        self.limit = limit
        self.condition = Condition(rules)
        self.condition.healthy = healthy
        self.most_in_flight = 0

    @property
    def in_flight(self) -> int:
        return self.condition.in_flight

    def has_slot(self) -> bool:
        return self.limit is None or self.in_flight < self.limit

    async def attempt(self, call: Call, sink: Sink) -> None:
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        await self(call, sink)


def standing_of(call: Call) -> Standing:
    return Standing(NORMAL if call.priority is None else call.priority, 1.0)


def make_pool(
    *endpoints: FakeEndpoint,
    name: str = "main",
    max_size: int = 100,
    timeout: float = 60.0,
    aging: float = 30.0,
    max_bytes: int = 10**9,
    ejection: EjectionRules | None = None,
    standing: Callable[[Call], Standing] = standing_of,
    rules: HealthRules = POOL_RULES,
    most_quarantined: int = MAX_REQUESTS,
    **changes: Any,
) -> Pool:
    """A pool on the loop's clock; calls cost 10 tokens, and have the priority that they ask for."""
    fields: dict[str, Any] = {"cost": lambda _: 10.0, "randrange": Random(7).randrange, "clock": now} | changes
    limits = QueueLimits(max_size, max_bytes, timeout, aging)
    terms = Terms(limits, standing, rules, ejection or EjectionRules(), most_quarantined)
    return Pool(name, cast("tuple[HttpEndpoint, ...]", endpoints), terms, **fields)


class FakeLease:
    """A place in a pool whose attempts go to the given endpoints in turn, the last one again and again."""

    def __init__(self, *endpoints: FakeEndpoint, wait: float = 0.0) -> None:
        self.endpoints = list(endpoints)
        self.wait = wait
        self.untried = len(endpoints)
        self.outcomes: list[Outcome] = []
        self.pauses: list[float] = []
        self.rests: list[float] = []
        self.sound = True
        self.goes_on = True
        self.first_tokens = 0
        self.closed = 0
        self.stays = 0

    async def next(self) -> FakeEndpoint:
        if self.wait:
            await asyncio.sleep(self.wait)
        self.untried = max(0, self.untried - 1)
        return self.endpoints.pop(0) if len(self.endpoints) > 1 else self.endpoints[0]

    def has_untried(self) -> bool:
        return self.untried > 0

    def has_sound(self) -> bool:
        return self.has_untried() and self.sound

    def rest(self, seconds: float) -> None:
        self.rests.append(seconds)

    bound = inf

    def gone_silent(self) -> bool:
        return False

    def stay(self) -> None:
        self.stays += 1

    def answered(self) -> None:
        self.first_tokens += 1

    def may_go_on(self) -> bool:
        return self.goes_on

    def ended(self, outcome: Outcome, failure: UpstreamFailure | None = None) -> None:
        self.outcomes.append(outcome)

    def pause(self) -> None:
        self.pauses.append(now())

    def close(self) -> None:
        self.closed += 1
