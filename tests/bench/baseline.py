"""The floor: a relay with nothing in it (uvicorn, uvloop, httptools, aiohttp; bytes in, bytes out).

No policy, no log, no look into a body, and it does not tell the engine when a client leaves. What a gateway
of the same parts costs above this is its own work.

    python -m tests.bench.baseline http://127.0.0.1:PORT       prints "listening on 127.0.0.1:PORT"
"""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import aiohttp
import uvicorn
import uvloop

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
JSON = {"content-type": "application/json"}
HOP_BY_HOP = {b"connection", b"transfer-encoding", b"keep-alive", b"date", b"server"}


class Relay:
    """An ASGI app that sends every request on to one engine."""

    def __init__(self, engine: str, session: aiohttp.ClientSession) -> None:
        self.engine = engine
        self.session = session

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        url = self.engine + scope["path"]
        async with self.session.request(scope["method"], url, data=body or None, headers=JSON) as answer:
            headers = [(k.lower(), v) for k, v in answer.raw_headers if k.lower() not in HOP_BY_HOP]
            await send({"type": "http.response.start", "status": answer.status, "headers": headers})
            if answer.content_length is None:
                async for piece in answer.content.iter_any():
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
                await send({"type": "http.response.body", "body": b""})
            else:
                await send({"type": "http.response.body", "body": await answer.read()})


async def serve(engine: str) -> None:
    """Serves on a free port of the loopback until it is told to end."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, auto_decompress=False) as session:
        config = uvicorn.Config(
            Relay(engine, session),
            timeout_graceful_shutdown=0,
            lifespan="off",
            http="httptools",
            loop="uvloop",
            log_level="error",
            access_log=False,
        )
        print(f"listening on 127.0.0.1:{listener.getsockname()[1]}", flush=True)
        await uvicorn.Server(config).serve([listener])


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(sys.argv[1]))
