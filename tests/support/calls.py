"""Calls through the gateway, many at once, each by the letter: what the client sees of each, and the load that they make."""

import asyncio
import json
import time
from dataclasses import dataclass
from typing import Any

import aiohttp

CHAT = "/v1/chat/completions"


@dataclass(frozen=True)
class Answer:
    """Status, Lexora's own headers without their prefix, the body, and how long it took in seconds."""

    status: int
    told: dict[str, str]
    retry_after: str | None
    body: bytes
    seconds: float

    @property
    def code(self) -> str:
        """The code of Lexora's error."""
        return str(json.loads(self.body)["error"]["code"])


def chat(model: str, **fields: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": "Tell me about foxes."}], "max_tokens": 2} | fields


class Caller:
    """A client with any number of connections; `async with` it."""

    def __init__(self, base: str) -> None:
        self._base = base

    async def __aenter__(self) -> "Caller":
        self._session = aiohttp.ClientSession(self._base, connector=aiohttp.TCPConnector(limit=0))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def call(self, model: str, headers: dict[str, str] | None = None, **fields: Any) -> Answer:
        """One chat."""
        began = time.monotonic()
        async with self._session.post(CHAT, json=chat(model, **fields), headers=headers) as response:
            body = await response.read()
            prefix = "x-lexora-"
            told = {
                key[len(prefix) :].lower(): value for key, value in response.headers.items() if key.lower().startswith(prefix)
            }
            return Answer(response.status, told, response.headers.get("retry-after"), body, time.monotonic() - began)

    async def many(self, count: int, model: str, **fields: Any) -> list[Answer]:
        """So many at once."""
        return await asyncio.gather(*(self.call(model, **fields) for _ in range(count)))

    async def steadily(self, per_second: float, seconds: float, model: str, **fields: Any) -> list[Answer]:
        """At a steady rate, whatever becomes of them."""
        loop = asyncio.get_running_loop()
        began, count = loop.time(), round(per_second * seconds)

        async def one(number: int) -> Answer:
            await asyncio.sleep(began + number / per_second - loop.time())
            return await self.call(model, **fields)

        return await asyncio.gather(*(one(number) for number in range(count)))
