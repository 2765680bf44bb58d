"""Streamed chats over HTTP, many at once, each kept whole."""

import asyncio
import json
from dataclasses import dataclass, field
from typing import Any

import httpx

CHAT = "/v1/chat/completions"


@dataclass
class Seen:
    """What one client saw: its status and the events of its answer."""

    status: int
    events: list[str] = field(default_factory=list)

    @property
    def whole(self) -> bool:
        """A 200 with an end mark and no error."""
        return self.status == 200 and self.events[-1:] == ["[DONE]"] and not any('"error"' in event for event in self.events)

    @property
    def error(self) -> dict[str, Any]:
        """The error that the answer ended with."""
        return dict(json.loads(self.events[-1])["error"])


def client(base: str) -> httpx.AsyncClient:
    """A client without limits of its own."""
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
    return httpx.AsyncClient(base_url=base, limits=limits, timeout=60, verify=False)


def body(model: str, tokens: int, **fields: Any) -> dict[str, Any]:
    """A streamed chat of exactly so many tokens."""
    messages = [{"role": "user", "content": "go on"}]
    return {"model": model, "messages": messages, "stream": True, "max_tokens": tokens, "ignore_eos": True} | fields


async def stream(http: httpx.AsyncClient, asked: dict[str, Any], first: asyncio.Event | None = None) -> Seen:
    """Ask, read to the end; `first` is set with the first event."""
    async with http.stream("POST", CHAT, json=asked) as response:
        seen = Seen(response.status_code)
        async for line in response.aiter_lines():
            if line.startswith("data: "):
                seen.events.append(line.removeprefix("data: "))
                if first is not None:
                    first.set()
        return seen


class Load:
    """So many clients that ask again and again until `stop`; `seen` is what all of them saw."""

    def __init__(self, base: str, asked: dict[str, Any], clients: int) -> None:
        self.seen: list[Seen] = []
        self._http = client(base)
        self._asked = asked
        self._end = asyncio.Event()
        self._news = asyncio.Event()
        self._tasks = [asyncio.create_task(self._run()) for _ in range(clients)]

    async def stop(self) -> list[Seen]:
        """Let calls under way end."""
        self._end.set()
        await asyncio.gather(*self._tasks)
        await self._http.aclose()
        return self.seen

    async def more(self, count: int) -> None:
        """Return when so many calls have ended."""
        async with asyncio.timeout(30):
            while len(self.seen) < count:
                self._news.clear()
                await self._news.wait()

    async def _run(self) -> None:
        while not self._end.is_set():
            self.seen.append(await stream(self._http, self._asked))
            self._news.set()
