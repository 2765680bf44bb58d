"""The HTTP facade in a process of its own, in front of a router at the end of a gRPC channel."""

import asyncio
import os
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

import structlog
from prometheus_client import REGISTRY

from lexora_cli.gateway_reload import GatewayReload
from lexora_cli.http_server import HttpServer, buffered_bytes, hand_over, listen_for_operators
from lexora_cli.reach import Reach
from lexora_cli.router_certificates import RouterCertificates
from lexora_cli.shared_sessions import SharedSessions
from lexora_contract.channel import ChannelRouter
from lexora_contract.draining import DrainingPort
from lexora_gateway import DeferredApp, Sessions, Surface, log_router, process_metrics
from lexora_router.access.key_format import is_key
from lexora_router.config import Config
from lexora_router.config.models import ReloadConfig
from lexora_router.policy.callers import TrustedProxies
from lexora_router.process.listening import HTTP
from lexora_router.process.process_memory import kept_low
from lexora_router.process.reload import RELOAD
from lexora_router.process.server_tls import server_tls
from lexora_router.process.serving_process import ServingProcess
from lexora_router.process.source import ConfigSource
from lexora_router.process.worker_counts import WorkerCounts
from lexora_router.version import __version__

# What surrounds a body in its message.
_ENVELOPE_BYTES = 2**20

_log = structlog.get_logger("lexora")


async def serve(reach: Reach, config: Config, source: ConfigSource) -> None:
    """Serve until SIGTERM or SIGINT, then drain. Raises CannotListen. The router may come and go meanwhile.

    All that matters here of the configuration is read at the start only: nothing is loaded again but certificates. Of several
    workers the supervisor replaces each where another configuration is there.
    """
    process, server = ServingProcess(lambda: config.server.drain_timeout), config.server
    certificates = RouterCertificates(reach)
    tls = server_tls(config)
    listener = process.ports.listen("http", server.host, server.port, HTTP)
    router = ChannelRouter(
        reach.address,
        max_send_bytes=server.max_body_bytes + _ENVELOPE_BYTES,
        max_receive_bytes=server.max_response_bytes + _ENVELOPE_BYTES,
        credentials=reach.credentials(),
        facade_key=_facade_key(config.auth.facade_key_env),
        log=log_router,
    )
    port = DrainingPort(router)
    reading = buffered_bytes(server)
    proxies = TrustedProxies(server.trusted_proxies)
    metrics = process_metrics if process.link is None else WorkerCounts(REGISTRY, process.link).metrics

    sessions = Sessions()

    def app(surface: Surface) -> DeferredApp:
        return DeferredApp(
            port,
            version=__version__,
            max_body_bytes=server.max_body_bytes,
            reading=reading,
            max_request_timeout=server.max_request_timeout,
            stream_keepalive=server.stream_keepalive,
            trusts=proxies.trusts,
            client_of=proxies.network,
            metrics=metrics,
            surface=surface,
            sessions=sessions,
            metrics_alone=not config.auth.enabled,
        )

    admin_listener = listen_for_operators(server, process.ports)
    http = HttpServer(app(Surface.ALL if admin_listener is None else Surface.CALLS), listener, server, tls)
    admin = None if admin_listener is None else HttpServer(app(Surface.OPERATORS), admin_listener, server, tls)
    REGISTRY.register(http.facts)
    if tls is not None:
        REGISTRY.register(tls)
        tls.start(lambda: config.reload)
    renewed = partial(certificates.look, router.renew)
    looks: list[Callable[[], Awaitable[None]]] = [renewed] if tls is None else [renewed, tls.look]
    if process.link is not None:
        process.link.answer(RELOAD, GatewayReload(config, source, looks).answer)
        SharedSessions(sessions, process.link)
    watching = [
        asyncio.create_task(_at_hangup(process.hangup, looks)),
        asyncio.create_task(_at_times(config.reload, renewed)),
    ]
    servers = [each for each in (http, admin) if each is not None]
    try:
        for each in servers:
            await each.start()
        with kept_low(lambda: port.active, lambda: reading.held):
            await process.serves(http=http.url, router=reach.address, admin=None if admin is None else admin.url)
            await http.serve_until(process.over)
            if process.hands_over:
                await hand_over(process, servers, lambda: not port.active, server.drain_timeout)
            http.drain()
            if port.active:
                _log.info("draining", active=port.active, timeout=server.drain_timeout)
            await port.drain(server.drain_timeout)
        port.abort()
    finally:
        for each in servers:
            await each.stop()
        if tls is not None:
            await tls.close()
        for task in watching:
            task.cancel()
        await asyncio.gather(*watching, return_exceptions=True)
        await router.close()
        await process.close()
    _log.info("stopped")


async def _at_hangup(hangup: asyncio.Event, looks: Sequence[Callable[[], Awaitable[None]]]) -> None:
    while True:
        await hangup.wait()
        hangup.clear()
        for look in looks:
            await look()


async def _at_times(reload: ReloadConfig, look: Callable[[], Awaitable[None]]) -> None:
    while reload.watch:
        await asyncio.sleep(reload.interval)
        await look()


def _facade_key(variable: str | None) -> str:
    """The key that proves this facade to its router; empty for none."""
    key = os.environ.get(variable, "").strip() if variable is not None else ""
    if variable is not None and not is_key(key):
        state = "holds no key" if key else "is not set"
        _log.warning("facade_key", problem=f"auth.facade_key_env: {variable} {state}; the router believes no address and user")
        return ""
    return key
