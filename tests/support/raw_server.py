"""A TCP server that speaks HTTP by the letter of a script: it sends what it is told to, and keeps what it got.

A script is a list of steps, one list per request; the last list serves all further requests.
"""

import asyncio
import contextlib
import socket
import struct
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from types import TracebackType
from typing import Self

DEADLINE_SECONDS = 20.0


class Do(Enum):
    """Steps that are no bytes."""

    CLOSE = auto()  # end the connection in order
    RESET = auto()  # RST: what the kernel sends for a process that died
    HANG = auto()  # say nothing until the peer leaves


Step = bytes | Do | asyncio.Event


@dataclass
class RawRequest:
    """A request as it came."""

    method: str
    target: str
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes = b""

    def header(self, name: str) -> str | None:
        """The value of a header that may occur once."""
        found = [value for key, value in self.headers if key.lower() == name]
        assert len(found) < 2, f"{name} was sent {len(found)} times"
        return found[0] if found else None

    @property
    def names(self) -> set[str]:
        return {name.lower() for name, _ in self.headers}


class RawServer:
    """`async with RawServer([...]) as server`; `requests` are those that came, `connections` how many were made."""

    def __init__(self, *scripts: Sequence[Step]) -> None:
        self.scripts = list(scripts)
        self.requests: list[RawRequest] = []
        self.connections = 0
        self.lost_at: list[float] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._news = asyncio.Event()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accepted, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    async def wait_requests(self, count: int) -> None:
        """Return when so many requests have come in whole."""
        await self._until(lambda: len(self.requests) >= count)

    async def wait_lost(self, count: int = 1) -> float:
        """Instant (time.monotonic) at which so many connections were lost by the peer's doing."""
        await self._until(lambda: len(self.lost_at) >= count)
        return self.lost_at[count - 1]

    async def _until(self, done: Callable[[], bool]) -> None:
        async with asyncio.timeout(DEADLINE_SECONDS):
            while not done():
                self._news.clear()
                await self._news.wait()

    def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                self.requests.append(await _read_request(reader))
                self._news.set()
                script = self.scripts[min(len(self.requests), len(self.scripts)) - 1]
                for step in script:
                    if not await self._do(step, reader, writer):
                        return
        except (asyncio.IncompleteReadError, ConnectionError):
            self.lost_at.append(time.monotonic())
            self._news.set()
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _do(self, step: Step, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        if isinstance(step, bytes):
            writer.write(step)
            await writer.drain()
            await asyncio.sleep(0)  # so that each step arrives by itself
            await asyncio.sleep(0)
        elif isinstance(step, asyncio.Event):
            await step.wait()
        elif step is Do.HANG:
            await reader.readexactly(1)
        else:
            if step is Do.RESET:
                raw = writer.get_extra_info("socket")
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                writer.transport.abort()
            return False
        return True


async def _read_request(reader: asyncio.StreamReader) -> RawRequest:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    method, target, _ = head[0].split(" ")
    request = RawRequest(method, target, [(n, v.strip()) for n, _, v in (line.partition(":") for line in head[1:] if line)])
    request.body = await reader.readexactly(int(request.header("content-length") or 0))
    return request


# -- answers


def reply(body: bytes, *, status: str = "200 OK", content_type: str = "application/json", headers: str = "") -> bytes:
    """A whole answer with a content-length; `headers` are whole lines."""
    kind = f"content-type: {content_type}\r\n" if content_type else ""
    return f"HTTP/1.1 {status}\r\n{kind}{headers}content-length: {len(body)}\r\n\r\n".encode() + body


def stream_head(headers: str = "") -> bytes:
    """The head of a chunked event stream."""
    return (
        f"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n{headers}transfer-encoding: chunked\r\n\r\n"
    ).encode()


def chunk(data: bytes) -> bytes:
    """One HTTP chunk."""
    return b"%x\r\n%s\r\n" % (len(data), data)


LAST_CHUNK = b"0\r\n\r\n"


def stream(*events: bytes, headers: str = "") -> bytes:
    """A whole event stream, one chunk an event."""
    return stream_head(headers) + b"".join(chunk(event) for event in events) + LAST_CHUNK


def closed_port() -> int:
    """A port at which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
