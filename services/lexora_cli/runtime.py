"""Event loops, sockets and signals of the long-running commands."""

import asyncio
import contextlib
import signal
import socket
from collections.abc import Coroutine, Iterator
from typing import Any

import uvicorn
import uvloop
from fastapi import FastAPI
from lexora_gateway.protocol import BoundedHttpProtocol

BACKLOG = 2048


def run(main: Coroutine[Any, Any, None]) -> None:
    """Run a command on uvloop until it ends."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main)


def listen(host: str, port: int) -> socket.socket:
    """A listening TCP socket; raises OSError when the address cannot be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    listener.setblocking(False)
    return listener


def address(listener: socket.socket) -> str:
    """host:port of a listening socket."""
    host, port = listener.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def stop_event() -> asyncio.Event:
    """Set by SIGTERM and SIGINT; a second signal ends the process at once."""
    loop, event = asyncio.get_running_loop(), asyncio.Event()

    def on_signal() -> None:
        if event.is_set():
            raise SystemExit(130)
        event.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    return event


class HttpServer:
    """uvicorn on a socket that is already listening; started and stopped by its owner, not by signals."""

    def __init__(self, app: FastAPI, listener: socket.socket) -> None:
        config = uvicorn.Config(
            app,
            http=BoundedHttpProtocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_keep_alive=75,
            timeout_graceful_shutdown=5,
        )
        self._server = _Server(config)
        self._listener = listener
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Return when requests are served."""
        self._task = asyncio.create_task(self._server.serve(sockets=[self._listener]))
        while not self._server.started:
            if self._task.done():
                self._task.result()
            await asyncio.sleep(0.002)

    async def stop(self) -> None:
        """Close idle connections, give the others a moment, then return."""
        self._server.should_exit = True
        if self._task is not None:
            await self._task


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to the command."""
        yield
