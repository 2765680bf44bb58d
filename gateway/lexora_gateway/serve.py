"""Running the facade on uvicorn."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import structlog
import uvicorn

from lexora_gateway.http.accepting import Accepting
from lexora_gateway.http.client_timeouts import PATIENCE, Patience
from lexora_gateway.http.connections import Connections
from lexora_gateway.http.protocol import HttpProtocol
from lexora_gateway.http.site import Site
from lexora_gateway.http.tls import Handshake

if TYPE_CHECKING:
    import asyncio
    import socket
    from collections.abc import Awaitable, Callable

    from uvicorn.server import ServerState

    from lexora_gateway.api_route import ApiRoute
    from lexora_gateway.http.cors import Cors
    from lexora_gateway.http.hosts import Hosts
    from lexora_gateway.http.tls import Tls

_log = structlog.get_logger("lexora_gateway")


def log_router(event: str, reason: str) -> None:
    """Write down that the router at the other end of a channel cannot be reached, and why."""
    _log.warning(event, reason=reason)


def server_config(
    app: Any,
    *,
    host: str,
    port: int,
    patience: Patience = PATIENCE,
    cors: Cors | None = None,
    connections: Connections | None = None,
    tls: Tls | None = None,
    hosts: Hosts | None = None,
    max_age: float | None = None,
) -> uvicorn.Config:
    """uvicorn's server on uvloop, with this package's own connections. Port 0 picks a free port.

    An application of `create_app` must be complete: with middleware of its own, all calls go through it. `patience` bounds
    heads, writes and idle connections here; its silence inside a body is for `create_app`. With `cors` pages of other
    origins may call. Without `connections` there may be any number of them.
    With `tls` it is HTTPS. Requests for others than `hosts` are refused, and connections end after some `max_age` seconds.
    """
    routes: dict[bytes, ApiRoute] = getattr(app, "direct_routes", dict)()
    site = Site(app, routes, patience, cors, connections or Connections(), hosts, max_age)

    def connection(server_state: ServerState, **_: Any) -> asyncio.Protocol:
        return HttpProtocol(site, server_state) if tls is None else Handshake(site, server_state, tls)

    return uvicorn.Config(
        app,
        host=host,
        port=port,
        loop="auto",
        http=cast("type[asyncio.Protocol]", connection),
        ws="none",
        lifespan="off",
        access_log=False,
        log_config=None,
        log_level="warning",
        server_header=False,
        proxy_headers=False,
    )


class GatewayServer(uvicorn.Server):
    """A uvicorn server that reports its address once it serves, and lets go of the router at its end.

    `announce` gets the address as `http://host:port`; `on_stop` is awaited after the last response.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        announce: Callable[[str], None],
        on_stop: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        super().__init__(config)
        self._announce = announce
        self._on_stop = on_stop

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen on sockets that are non-blocking, then report the address."""
        if sockets:
            self.config.http_protocol_class = cast("Any", Accepting(self.config.http_protocol_class, sockets))
        await super().startup(sockets)
        if self.started:
            host, port = self.servers[0].sockets[0].getsockname()[:2]
            self._announce(f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}")

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Let the responses under way end, then close the router."""
        await super().shutdown(sockets)
        if self._on_stop is not None:
            await self._on_stop()
