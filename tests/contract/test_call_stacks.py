"""The way of a call and of a chunk through a whole gateway, frame by frame, as docs/architecture.md has it."""

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest
from uvicorn.server import ServerState

import lexora_gateway
import lexora_router
from lexora_contract.inprocess import InProcessRouter
from lexora_gateway import DeferredApp, server_config
from lexora_gateway.http.protocol import HttpProtocol
from lexora_router.config import Config
from lexora_router.engines.http1 import Connection
from tests.contract.messages import delta
from tests.support.links import running
from tests.support.loop_engine import LoopEngine
from tests.support.raw_server import LAST_CHUNK, chunk, stream_head
from tests.unit.docs.pages import code, page

CHAT = "/v1/chat/completions"
BODY = b'{"model":"m","messages":[{"role":"user","content":"hi"}],"stream":true}'
REQUEST = b"POST %b HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (
    CHAT.encode(),
    len(BODY),
    BODY,
)
PACKAGES = [Path(cast("str", each.__file__)).parent for each in (lexora_gateway, lexora_router)]

Stack = list[tuple[str, str]]


def product_frames() -> Stack:
    """Function and file of each frame of the product's that is under way, outermost first, files by their package."""
    frame, stack = sys._getframe(2), cast("Stack", [])
    while frame is not None:
        path = Path(frame.f_code.co_filename)
        for root in PACKAGES:
            if path.is_relative_to(root):
                stack.append((frame.f_code.co_qualname, f"{root.name}/{path.relative_to(root)}"))
        frame = cast("Any", frame.f_back)
    return stack[::-1]


@dataclass
class Watched:
    """A transport, and what was under way whenever something was written to it."""

    inner: Any
    seen: Callable[[Stack], None]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def write(self, data: bytes) -> None:
        self.seen(product_frames())
        self.inner.write(data)


@contextlib.asynccontextmanager
async def gateway(config: Config) -> AsyncIterator[int]:
    """The port of a gateway in this loop: router and facade as `lexora serve` joins them."""
    async with running(config) as (router, _):
        app = DeferredApp(
            InProcessRouter(router.services),
            version="0",
            max_body_bytes=config.server.max_body_bytes,
            trusts=router.trusts,
            client_of=router.client_of,
            metrics=router.scrape,
        )
        make = cast("Any", server_config(app, host="127.0.0.1", port=0).http)
        server = await asyncio.get_running_loop().create_server(lambda: make(server_state=ServerState()), "127.0.0.1", 0)
        async with server:
            yield server.sockets[0].getsockname()[1]


def listed(head: str) -> list[tuple[str, str]]:
    """Function and file of each row of the table in docs/architecture.md that begins with this column."""
    rows = page("docs/architecture.md").table("", head)
    return [(code(function)[0], code(file)[0]) for _, function, file, _ in rows]


async def test_a_chunk_and_a_call_take_the_way_that_is_written_down(
    engine: LoopEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    gates = [asyncio.Event() for _ in range(3)]
    script = [part for gate in gates for part in (chunk(delta("a")), gate)]
    engine.answer(stream_head(), *script, chunk(b"data: [DONE]\n\n"), LAST_CHUNK)
    asked: list[Stack] = []
    answered: list[Stack] = []
    made, connected = HttpProtocol.connection_made, Connection.connection_made
    monkeypatch.setattr(HttpProtocol, "connection_made", lambda self, wire: made(self, Watched(wire, answered.append)))  # type: ignore[arg-type]
    monkeypatch.setattr(Connection, "connection_made", lambda self, wire: connected(self, Watched(wire, asked.append)))  # type: ignore[arg-type]
    routing = {"default_backend": "main", "backends": {"main": {"url": engine.url, "models": ["m"]}}}
    config = Config.model_validate({"routing": routing})  # everything else as it is by default
    async with gateway(config) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        asked.clear()
        writer.write(REQUEST)
        async with asyncio.timeout(20):
            for gate in gates:
                await reader.readuntil(b"data: ")
                gate.set()
            await reader.readuntil(b"0\r\n\r\n")
        writer.close()
    (call,) = [stack for stack in asked if any(function == "Relay.serve" for function, _ in stack)]
    piece = answered[1]
    assert piece == listed("function, for each piece")
    assert call == listed("function, for each call")
    assert len(piece) <= 6
    assert len({file for _, file in piece}) <= 5
    assert len(call) <= 20
