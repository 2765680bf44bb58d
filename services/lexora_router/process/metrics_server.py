"""GET /metrics on a port of its own, for a router that serves gRPC alone."""

import asyncio
import contextlib
import gzip
import socket
from collections.abc import Callable, Iterator

import uvicorn
from prometheus_client.exposition import gzip_accepted
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from lexora_router.process.listening import listening_address

# A scrape that takes longer than this at the end of the process is cut.
GRACE_SECONDS = 1


class MetricsServer:
    """Serves what `metrics` gives (body and content type for an Accept header) on a socket that is already listening."""

    def __init__(self, metrics: Callable[[str], tuple[bytes, str]], listener: socket.socket) -> None:
        async def scrape(request: Request) -> Response:
            body, content_type = metrics(request.headers.get("accept", ""))
            headers = {"content-type": content_type, "vary": "accept, accept-encoding"}
            if gzip_accepted(request.headers.get("accept-encoding", "")):
                body = await asyncio.to_thread(gzip.compress, body, 6)
                headers["content-encoding"] = "gzip"
            return Response(body, headers=headers)

        self.url = f"http://{listening_address(listener)}/metrics"
        self._listener = listener
        self._server = _Server(
            uvicorn.Config(
                Starlette(routes=[Route("/metrics", scrape)]),
                http="h11",  # bounds the head of a request; the faster parser keeps whatever comes
                lifespan="off",
                log_config=None,
                access_log=False,
                timeout_graceful_shutdown=GRACE_SECONDS,
            )
        )
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to serve; the kernel keeps connections until then."""
        self._task = asyncio.create_task(self._server.serve(sockets=[self._listener]), name="lexora-metrics")

    async def stop(self) -> None:
        """Let a scrape under way finish, then close the port."""
        self._server.should_exit = True
        if self._task is not None:
            await asyncio.gather(self._task, return_exceptions=True)
        self._listener.close()


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to the command."""
        yield
