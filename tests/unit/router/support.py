"""Small parts that the router's unit tests share."""

import asyncio
from collections.abc import Sequence
from typing import Any

from lexora_router.handler import Call, Emit, Endpoint, Event, Frames, Head, Target, Timeouts

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


def make_target(*endpoints: Endpoint, timeouts: Timeouts = TIMEOUTS, backend: str = "main", model: str = "m") -> Target:
    return Target(backend, endpoints, timeouts, model)


class Client:
    """An emit that keeps what it got; `delay` is how long it takes over each event, in seconds."""

    def __init__(self, delay: float = 0.0) -> None:
        self.events: list[Event] = []
        self.delay = delay
        self._news = asyncio.Event()

    async def __call__(self, event: Event) -> None:
        if self.delay:
            await asyncio.sleep(self.delay)
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
    """An inner handler: emits events, sleeps floats (seconds), raises exceptions, hangs at "hang"; counts how it was left."""

    def __init__(self, *steps: Step) -> None:
        self.steps: Sequence[Step] = steps
        self.calls: list[Call] = []
        self.running = 0
        self.cancelled = 0
        self._begun = asyncio.Event()

    async def __call__(self, call: Call, emit: Emit) -> None:
        self.calls.append(call)
        self.running += 1
        self._begun.set()
        try:
            for step in self.steps:
                await self._do(step, emit)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.running -= 1

    async def begun(self) -> None:
        """Return when it has been called."""
        await self._begun.wait()

    async def _do(self, step: Step, emit: Emit) -> None:
        if isinstance(step, BaseException):
            raise step
        if isinstance(step, float):
            await asyncio.sleep(step)
        elif step == HANG:
            await asyncio.sleep(1e6)
        else:
            assert not isinstance(step, str)
            await emit(step)


class FakeEndpoint(Scripted):
    """An endpoint whose attempts follow a script."""

    def __init__(self, *steps: Step, address: str = "http://e:1", healthy: bool | None = None) -> None:
        super().__init__(*steps)
        self.address = address
        self.in_flight = 0
        self.healthy = healthy
        self.seen_in_flight: list[int] = []

    async def attempt(self, call: Call, emit: Emit) -> None:
        self.seen_in_flight.append(self.in_flight)
        await self(call, emit)
