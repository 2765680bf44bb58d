"""GET /metrics on a port of its own, for a router that serves gRPC alone."""

import asyncio
import contextlib
import gzip
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterator

import uvicorn
from prometheus_client.exposition import gzip_accepted
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from lexora.v1.principal_pb2 import SCOPE_OBSERVE, GetPrincipalRequest, GetPrincipalResponse
from lexora_contract.access import CREDENTIALS
from lexora_contract.port import CallContext, CallFailed
from lexora_contract.reasons import REASONS
from lexora_router.process.listening import listening_address

# A scrape that takes longer than this at the end of the process is cut.
GRACE_SECONDS = 1
# To find out about a token may need its issuer's keys.
CREDENTIALS_SECONDS = 10.0
_LACKING = "This needs the scope `observe`, which these credentials do not have."
_READ = frozenset((*CREDENTIALS, "x-forwarded-for"))

# The caller of a context; raises CallFailed.
Identify = Callable[[GetPrincipalRequest, CallContext], Awaitable[GetPrincipalResponse]]


class MetricsServer:
    """Serves what `metrics` gives (body and content type for an Accept header) on a socket that is already listening.

    `identify` gives the caller of a request, which needs the scope `observe`. With `tls` it is HTTPS: scrapers show a key.
    """

    def __init__(
        self,
        metrics: Callable[[str], Awaitable[tuple[bytes, str]]],
        identify: Identify,
        listener: socket.socket,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        async def scrape(request: Request) -> Response:
            try:
                caller = await identify(GetPrincipalRequest(), _context(request))
                if SCOPE_OBSERVE not in caller.scopes:
                    raise CallFailed(
                        "PERMISSION_DENIED", "This needs the scope `observe`, which these credentials do not have."
                    )
            except CallFailed as failed:
                return _refusal(failed)
            body, content_type = await metrics(request.headers.get("accept", ""))
            headers = {"content-type": content_type, "vary": "accept, accept-encoding"}
            if gzip_accepted(request.headers.get("accept-encoding", "")):
                body = await asyncio.to_thread(gzip.compress, body, 6)
                headers["content-encoding"] = "gzip"
            return Response(body, headers=headers)

        self.url = f"{'http' if tls is None else 'https'}://{listening_address(listener)}/metrics"
        self._listener = listener
        config = uvicorn.Config(
            Starlette(routes=[Route("/metrics", scrape)]),
            http="h11",  # bounds the head of a request; the faster parser keeps whatever comes
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,  # the client's address is the connection's
            timeout_graceful_shutdown=GRACE_SECONDS,
        )
        config.load()
        config.ssl = tls  # which uvicorn would make of files by itself, once
        self._server = _Server(config)
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


def _context(request: Request) -> CallContext:
    shown = tuple((name, value) for name, value in request.headers.items() if name in _READ)
    return CallContext(shown, CREDENTIALS_SECONDS, peer=request.client.host if request.client else "")


def _refusal(failed: CallFailed) -> Response:
    reason = REASONS[failed.reason]
    headers = {"www-authenticate": "Bearer"} if reason.status == 401 else {}
    if failed.retry_after is not None:
        headers["retry-after"] = str(max(1, round(failed.retry_after)))
    error = {"message": failed.message, "type": reason.type, "param": None, "code": reason.openai_code}
    return JSONResponse({"error": error}, reason.status, headers)


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to the command."""
        yield
