"""Many calls at once from one client, each on a connection of its own: what each came to, and when."""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import msgspec


@dataclass(slots=True)
class Answer:
    """What a call came to. Instants are of the machine's monotonic clock, in seconds; names of headers are lower case."""

    id: str
    status: int
    sent: float
    ended: float
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""

    @property
    def seconds(self) -> float:
        """From sending to the end."""
        return self.ended - self.sent

    @property
    def json(self) -> Any:
        """The body, decoded."""
        return msgspec.json.decode(self.body)

    @property
    def error(self) -> dict[str, Any]:
        """OpenAI's error object."""
        found = self.json["error"]
        assert isinstance(found, dict)
        return found


class Client:
    """Calls one server. As many connections as calls under way; `calls` numbers the ids."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session
        self._count = 0

    async def post(self, path: str, body: Mapping[str, Any] | aiohttp.FormData, *, name: str = "", **headers: str) -> Answer:
        """POST the body. `name` is the request id. Of header names an underscore is a hyphen. Cancelling it is leaving."""
        self._count += 1
        name = name or f"call-{self._count}"
        all_headers = {key.replace("_", "-"): value for key, value in headers.items()} | {"x-request-id": name}
        data: Any = body
        if not isinstance(body, aiohttp.FormData):
            data = msgspec.json.encode(body)
            all_headers["content-type"] = "application/json"
        sent = time.monotonic()
        async with self._session.post(path, data=data, headers=all_headers) as response:
            text = await response.read()
            found = {key.lower(): value for key, value in response.headers.items()}
            return Answer(name, response.status, sent, time.monotonic(), found, text)


@asynccontextmanager
async def client(base: str) -> AsyncIterator[Client]:
    """A client of the server at this URL; what is still under way at the end is dropped."""
    connector = aiohttp.TCPConnector(limit=0)
    timeout = aiohttp.ClientTimeout(total=None)
    async with aiohttp.ClientSession(base, connector=connector, timeout=timeout) as session:
        yield Client(session)


@asynccontextmanager
async def held(one: Client, body: Mapping[str, Any], count: int) -> AsyncIterator[None]:
    """So many calls of the same body are under way inside; they leave at the end."""
    path = "/v1/chat/completions"
    tasks = [asyncio.create_task(one.post(path, body, name=f"held-{number}")) for number in range(count)]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def chat(model: str, tokens: int, **more: Any) -> dict[str, Any]:
    """A chat call for exactly so many tokens."""
    body = {"model": model, "messages": [{"role": "user", "content": "go on"}], "max_tokens": tokens, "ignore_eos": True}
    return body | more
