"""A raw HTTP client: what the simulator puts on the wire is what the tests look at."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from lexora_sim import Simulator

HELLO = {"model": "tiny", "messages": [{"role": "user", "content": "hello"}]}


@dataclass
class Answer:
    """One answer as it came; `chunks` are the HTTP chunks of a stream, `complete` says it ended as it should."""

    status: int
    headers: dict[str, str]
    head: str
    body: bytes
    chunks: list[bytes] = field(default_factory=list)
    complete: bool = True

    def json(self) -> Any:
        return json.loads(self.body)

    def events(self) -> list[Any]:
        """The data lines, decoded unless they are [DONE] or broken."""
        lines = [line[6:] for line in self.body.decode("utf-8", "replace").splitlines() if line.startswith("data: ")]
        return [_decode(line) for line in lines]

    def text(self) -> str:
        deltas = [event["choices"][0] for event in self.events() if isinstance(event, dict) and event.get("choices")]
        return "".join(choice.get("text") or choice.get("delta", {}).get("content") or "" for choice in deltas)

    def ids(self) -> list[int]:
        choices = [event["choices"][0] for event in self.events() if isinstance(event, dict) and event.get("choices")]
        return [token for choice in choices for token in choice.get("token_ids") or []]


def _decode(line: str) -> Any:
    try:
        return json.loads(line)
    except ValueError:
        return line


def encode_request(method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> bytes:
    data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
    lines = {"host": "sim", "content-length": str(len(data)), **(headers or {})}
    if body is not None:
        lines = {"content-type": "application/json", **lines}
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode() + data


async def call(sim: Simulator, method: str, path: str, body: Any = None, **headers: str) -> Answer:
    """Send one request on a connection of its own and read until the server closes it or cuts it."""
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    reader, writer = await asyncio.open_connection(sim.host, sim.port)
    try:
        writer.write(encode_request(method, path, body, {"connection": "close", **names}))
        data, broken = b"", False
        try:
            async with asyncio.timeout(20):
                while piece := await reader.read(65536):
                    data += piece
        except ConnectionResetError:
            broken = True
        return parse(data, broken=broken)
    finally:
        writer.close()


async def post(sim: Simulator, path: str, body: Any, **headers: str) -> Answer:
    return await call(sim, "POST", path, body, **headers)


async def chat(sim: Simulator, fault: str | None = None, **fields: Any) -> Answer:
    body = {**HELLO, **fields, **({"sim_fault": fault} if fault else {})}
    return await post(sim, "/v1/chat/completions", body)


async def complete(sim: Simulator, prompt: Any, **fields: Any) -> Answer:
    return await post(sim, "/v1/completions", {"model": "tiny", "prompt": prompt, **fields})


def parse(data: bytes, *, broken: bool = False) -> Answer:
    head, _, body = data.partition(b"\r\n\r\n")
    if not head:
        return Answer(0, {}, "", b"", complete=False)
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines)
    answer = Answer(int(first.split()[1]), headers, head.decode("latin-1"), body, complete=not broken)
    if headers.get("transfer-encoding") == "chunked":
        answer.complete = _dechunk(body, answer.chunks) and not broken
        answer.body = b"".join(answer.chunks)
    elif len(body) != int(headers.get("content-length", len(body))):
        answer.complete = False
    return answer


def _dechunk(body: bytes, chunks: list[bytes]) -> bool:
    while body:
        size, _, rest = body.partition(b"\r\n")
        length = int(size, 16)
        if length == 0:
            return rest == b"\r\n"
        chunks.append(rest[:length])
        body = rest[length + 2 :]
    return False


def names(text: str) -> list[str]:
    """Words as a list: the field names of a JSON object, in order."""
    return text.split()


async def until(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    """Wait for a condition; fails the test when it does not come true."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - the condition is the server's inside, which has no event
            await asyncio.sleep(0.001)
