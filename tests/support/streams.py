"""Many streamed answers at once: what each client got, and when, against what a lone engine says to the same bodies."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import Any

import aiohttp
import msgspec

from tests.support.process import Process
from tests.support.servers import Simulator

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
_decode = msgspec.json.Decoder().decode


@dataclass(frozen=True, slots=True)
class Ask:
    """One question: where to, and the body without `stream`."""

    path: str
    body: dict[str, Any]

    def streamed(self, *, usage: bool) -> dict[str, Any]:
        return self.body | {"stream": True} | ({"stream_options": {"include_usage": True}} if usage else {})


@dataclass(frozen=True, slots=True)
class Told:
    """A whole answer: its text, why it ended, and what it cost."""

    text: str
    reason: str | None
    usage: dict[str, int] | None


@dataclass
class Streamed:
    """What a client got. `pieces` are reads of the body with their instants (time.monotonic); `cut`: no proper end of body."""

    name: str
    status: int = 0
    pieces: list[tuple[float, bytes]] = field(default_factory=list)
    sent: float = 0.0
    cut: bool = False
    over: bool = False

    @cached_property
    def events(self) -> list[Any]:
        """The data of every event, decoded; "[DONE]" as it is. Use it when the stream is over."""
        body = b"".join(data for _, data in self.pieces)
        found = [event[6:] for event in body.split(b"\n\n") if event.startswith(b"data: ")]
        return [event.decode() if event == b"[DONE]" else _decode(event) for event in found]

    @property
    def chunks(self) -> list[dict[str, Any]]:
        return [event for event in self.events if isinstance(event, dict) and "error" not in event]

    @property
    def errors(self) -> list[dict[str, Any]]:
        return [event["error"] for event in self.events if isinstance(event, dict) and "error" in event]

    @property
    def done(self) -> bool:
        """Whether it ended as a whole stream does: the end mark once, last, and no error."""
        return not self.cut and self.events.count("[DONE]") == 1 and self.events[-1] == "[DONE]" and not self.errors

    @property
    def told(self) -> Told:
        choices = [chunk["choices"][0] for chunk in self.chunks if chunk["choices"]]
        text = "".join(choice["delta"].get("content") or "" if "delta" in choice else choice["text"] for choice in choices)
        reasons = [choice["finish_reason"] for choice in choices if choice["finish_reason"]]
        usages = [chunk["usage"] for chunk in self.chunks if chunk.get("usage")]
        assert len(reasons) < 2, f"{self.name} ended more than once: {reasons}"
        assert len(usages) < 2, f"{self.name} has usage more than once: {usages}"
        return Told(text, next(iter(reasons), None), _counts(usages[0]) if usages else None)

    def gaps(self, begin: float = 0.0, end: float = float("inf")) -> list[float]:
        """Seconds between two reads that follow each other, of those whose second one is between the instants."""
        instants = [instant for instant, _ in self.pieces]
        return [after - before for before, after in pairwise(instants) if begin <= after < end]


class Crowd:
    """Streams under way together, one task each."""

    def __init__(self, session: aiohttp.ClientSession, asks: Mapping[str, Ask], usage: Callable[[str], bool]) -> None:
        self._session = session
        self.streams = {name: Streamed(name) for name in asks}
        self._tasks = [asyncio.create_task(self._run(name, ask, usage=usage(name))) for name, ask in asks.items()]

    async def begun(self, pieces: int = 2, seconds: float = 20.0) -> None:
        """Return when each has got so many pieces, or is over."""
        await until(lambda: all(len(each.pieces) >= pieces or each.over for each in self.streams.values()), "tokens", seconds)

    async def over(self, seconds: float = 60.0) -> dict[str, Streamed]:
        """Wait for all to end."""
        async with asyncio.timeout(seconds):
            await asyncio.gather(*self._tasks)
        return self.streams

    async def drop(self) -> None:
        """Leave."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _run(self, name: str, ask: Ask, *, usage: bool) -> None:
        await stream(self._session, self.streams[name], ask, usage=usage)


async def stream(session: aiohttp.ClientSession, into: Streamed, ask: Ask, *, usage: bool) -> Streamed:
    """One streamed call, to its end."""
    into.sent = time.monotonic()
    try:
        headers = {"x-request-id": into.name}
        async with session.post(ask.path, json=ask.streamed(usage=usage), headers=headers) as response:
            into.status = response.status
            async for data in response.content.iter_any():
                into.pieces.append((time.monotonic(), data))
    except aiohttp.ClientError:
        into.cut = True
    finally:
        into.over = True
    return into


@asynccontextmanager
async def session_to(base: str) -> AsyncIterator[aiohttp.ClientSession]:
    """A client with as many connections as calls, and no time limits."""
    connector, timeout = aiohttp.TCPConnector(limit=0), aiohttp.ClientTimeout(total=None)
    async with aiohttp.ClientSession(base, connector=connector, timeout=timeout) as session:
        yield session


@asynccontextmanager
async def crowd(base: str, asks: Mapping[str, Ask], usage: Callable[[str], bool] = lambda _: True) -> AsyncIterator[Crowd]:
    """The asks by their request ids, all sent at once; what is under way at the end is dropped."""
    async with session_to(base) as session:
        found = Crowd(session, asks, usage)
        try:
            yield found
        finally:
            await found.drop()


async def ask_plainly(session: aiohttp.ClientSession, ask: Ask, name: str = "") -> Told:
    """The same without streaming; fails when the answer is no good one."""
    async with session.post(ask.path, json=ask.body, headers={"x-request-id": name} if name else {}) as response:
        text = await response.read()
        assert response.status == 200, (name, response.status, text)
    answer = _decode(text)
    choice = answer["choices"][0]
    said = choice["message"]["content"] if "message" in choice else choice["text"]
    return Told(said, choice["finish_reason"], _counts(answer["usage"]))


def _counts(usage: dict[str, Any]) -> dict[str, int]:
    """Without the details that only whole answers have, as null."""
    return {name: count for name, count in usage.items() if count is not None}


async def truth(model: str, asks: Mapping[str, Ask]) -> dict[str, Told]:
    """What an engine of its own, which nobody disturbs, says to each."""
    # Answers depend on the prompt and the seed, not on the timing.
    with Simulator("--ttft-ms", "0", "--itl-ms", "0", model=model) as sim:
        async with session_to(sim.url) as session:
            found = await asyncio.gather(*(ask_plainly(session, ask) for ask in asks.values()))
    return dict(zip(asks, found, strict=True))


def asks_for(model: str, names: Iterable[str], tokens: int) -> dict[str, Ask]:
    """Questions of their own for each name: three chats to one completion, with seeds."""
    found = {}
    for number, name in enumerate(names):
        body = {"model": model, "max_tokens": tokens, "seed": number, "ignore_eos": True}
        prompt = f"Tell me the story called {name}."
        if number % 4 == 3:
            found[name] = Ask(COMPLETIONS, body | {"prompt": prompt})
        else:
            found[name] = Ask(CHAT, body | {"messages": [{"role": "user", "content": prompt}]})
    return found


def call_lines(process: Process) -> dict[str, dict[str, Any]]:
    """The log's line of every call, by request id; the gateway must log JSON."""
    lines = [json.loads(line) for line in list(process.lines) if line.startswith("{")]
    return {line["request_id"]: line for line in lines if line.get("event") == "call"}


async def until(done: Callable[[], Any], what: str, seconds: float = 20.0) -> Any:
    """Ask again until the answer is true, and return it; fails after `seconds`. Other tasks go on meanwhile."""
    deadline = time.monotonic() + seconds
    while not (found := done()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds:g} s: {what}")
        await asyncio.sleep(0.01)
    return found


def percentile(values: list[float], percent: float) -> float:
    """Of at least one value."""
    return sorted(values)[min(len(values) - 1, int(len(values) * percent / 100))]
