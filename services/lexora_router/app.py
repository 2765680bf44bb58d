"""The router as one object: built from a configuration, started and stopped inside an event loop."""

import asyncio
import gc
import time

import structlog
from prometheus_client import CollectorRegistry, ProcessCollector, disable_created_metrics, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from lexora_router.backends.backend import Health, build_backends
from lexora_router.backends.catalogue import Catalogue
from lexora_router.backends.probe import Prober
from lexora_router.backends.routes import ModelRoutes
from lexora_router.config import Config
from lexora_router.grpc_server import GrpcServer
from lexora_router.overview import Overview
from lexora_router.pipeline import build
from lexora_router.server import RouterService
from lexora_router.telemetry.logs import AccessLog
from lexora_router.telemetry.metrics import BackendCollector, Metrics
from lexora_router.telemetry.stats import Stats

YOUNG_OBJECTS = 20_000

_log = structlog.get_logger("lexora.router")


class RouterApp:
    """Everything that runs in a router process. Make it inside the event loop; `start`, then `stop`."""

    def __init__(self, config: Config) -> None:
        clock = time.monotonic  # finer than uvloop's own clock, and the same origin
        self.config = config
        self._backends = build_backends(config, clock)
        self._catalogue = Catalogue(self._backends, ttl=config.catalogue.ttl, timeout=config.catalogue.timeout, clock=clock)
        routes = ModelRoutes(config, self._backends, self._catalogue)
        self._prober = Prober(
            self._backends, interval=config.health.interval, timeout=config.health.timeout, changed=self._on_probe, clock=clock
        )
        self.registry = _registry()
        self.registry.register(BackendCollector(self._backends))
        self._stats = Stats(routes.label)
        recorders = (self._stats, Metrics(self.registry, routes.label), AccessLog())
        self._overview = Overview(
            self._backends,
            routes,
            self._prober,
            self._stats,
            default_for_unknown_task=config.routing.default_model_for_unknown_task or "",
            probe_timeout=config.health.timeout + 0.5,
            clock=clock,
        )
        self.service = RouterService(
            build(routes=routes, recorders=recorders, clock=clock),
            self._overview,
            recorders=recorders,
            max_body_bytes=config.server.max_body_bytes,
            clock=clock,
        )
        self.grpc = GrpcServer(self.service, max_body_bytes=config.server.max_body_bytes)
        self._tasks: list[asyncio.Task[None]] = []
        self._serving = True
        self._updates: set[asyncio.Task[None]] = set()

    @property
    def active(self) -> int:
        """Calls under way."""
        return self._stats.active

    def metrics(self) -> tuple[bytes, str]:
        """The metrics in Prometheus' text form, and its content type."""
        return generate_latest(self.registry), CONTENT_TYPE_LATEST

    async def start(self, host: str, port: int) -> int:
        """Begin to probe the backends and to serve gRPC; returns the gRPC port. Raises OSError when it is taken."""
        bound = await self.grpc.start(host, port)
        self._tasks = [
            asyncio.create_task(self._prober.run(), name="lexora-probe"),
            asyncio.create_task(self._catalogue.keep_fresh(), name="lexora-catalogue"),
        ]
        _settle_garbage_collector()
        return bound

    async def drain(self) -> None:
        """Take no new calls, and return when those under way are done or `server.drain_timeout` has passed."""
        self.service.draining = True
        await self.grpc.set_serving(serving=False)
        if self.active:
            _log.info("draining", active=self.active, timeout=self.config.server.drain_timeout)
        try:
            async with asyncio.timeout(self.config.server.drain_timeout):
                await self._stats.idle()
        except TimeoutError:
            _log.warning("drain_timeout", active=self.active)

    async def stop(self) -> None:
        """Cancel what is left and close every connection."""
        await self.grpc.stop(grace=0)
        for task in (*self._tasks, *self._updates):
            task.cancel()
        await asyncio.gather(*self._tasks, *self._updates, return_exceptions=True)
        await self._catalogue.close()
        for backend in self._backends.values():
            backend.transport.close()

    def _on_probe(self) -> None:
        """Load balancers are told when the last backend goes, and when the first comes back."""
        serving = self._overview.state() is not Health.UNHEALTHY
        if serving != self._serving and not self.service.draining:
            self._serving = serving
            task = asyncio.create_task(self.grpc.set_serving(serving=serving))
            self._updates.add(task)
            task.add_done_callback(self._updates.discard)


def _settle_garbage_collector() -> None:
    """Leave what lives as long as the process out of every collection, and collect the young less often.

    At the default threshold of 700 objects a call pays for a collection of its own, a tenth of its CPU.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS, 20, 20)


def _registry() -> CollectorRegistry:
    disable_created_metrics()  # type: ignore[no-untyped-call]
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    return registry
