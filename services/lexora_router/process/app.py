"""The router as one object: built from a configuration, started, reloaded and stopped inside an event loop."""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial

import structlog
from prometheus_client import CollectorRegistry, ProcessCollector, disable_created_metrics
from prometheus_client.exposition import choose_encoder

from lexora_contract.rpcs import ROUTER, SERVICES
from lexora_router.access.assembly import AccessAssembly
from lexora_router.access.audit import AuditLog
from lexora_router.access.authenticator import Failures
from lexora_router.assembly import Assembly, Shared
from lexora_router.config import Config
from lexora_router.config.models import ServerConfig
from lexora_router.edge.admin_service import KEYS, AdminService
from lexora_router.edge.arriving_requests import ARRIVING_SHARE, ArrivingRequests
from lexora_router.edge.call_inputs import CallInputs
from lexora_router.edge.explain import Explainer
from lexora_router.edge.grpc_server import GrpcServer, GrpcTls
from lexora_router.edge.guard import Guard
from lexora_router.edge.introspection import Overview
from lexora_router.edge.router_service import RouterService
from lexora_router.edge.services import Services
from lexora_router.edge.serving import Serving
from lexora_router.edge.whole_overview import WholeOverview
from lexora_router.fleet.backend import Backend, Health, TlsContexts
from lexora_router.fleet.tenants import Tenancy
from lexora_router.leases.news import HealthNews, Watched
from lexora_router.leases.slots import SlotLeases
from lexora_router.machine import usable_memory
from lexora_router.policy.callers import TrustedProxies
from lexora_router.policy.rate_limiter import RateLimiter, plain
from lexora_router.policy.response_homes import ResponseHomes
from lexora_router.process.server_tls import ServerTls
from lexora_router.process.shared_state import WorkerOf, credit_of, link_of, shared_keys, shared_responses
from lexora_router.process.worker_counts import WorkerCounts
from lexora_router.telemetry.access import AccessCollector
from lexora_router.telemetry.account import Account
from lexora_router.telemetry.audit_sink import audit_sink
from lexora_router.telemetry.collector import BackendCollector, ProcessFacts
from lexora_router.telemetry.export import SpanCollector, telemetry_of
from lexora_router.telemetry.lag import LoopLag
from lexora_router.telemetry.logs import AccessLog
from lexora_router.telemetry.metrics import Metrics
from lexora_router.telemetry.names import BoundedNames
from lexora_router.telemetry.principals import PrincipalMetrics
from lexora_router.telemetry.recent import RecentCalls
from lexora_router.telemetry.reloads import Reload, ReloadCollector, ReloadLog
from lexora_router.telemetry.state_collector import StateCollector
from lexora_router.telemetry.stats import Stats
from lexora_router.workers.link import WorkerLink

# What calls that are ended after the drain may take to say so; then they are cancelled.
ABORT_SECONDS = 5.0
# The audit log has a line for each address that failed to get in during so many seconds.
SUM_SECONDS = 60.0

# What the start waits for the sources of discovered engines; they are looked at on.
FIRST_LOOK_SECONDS = 2.0

_log = structlog.get_logger("lexora.router")


class RouterApp:
    """Everything that runs in a router process. Make it inside the event loop; `start`, then `stop`."""

    def __init__(self, config: Config, tls: ServerTls | None = None, link: WorkerLink | None = None) -> None:
        clock = time.monotonic  # finer than uvloop's own clock, and the same origin
        self.registry = _registry()
        self.state = link_of(config.state, clock, _coordinated(link))
        credit = None if self.state is None else credit_of(self.state, clock)
        buckets = plain if credit is None else credit.buckets
        self._limiter = RateLimiter(Tenancy(config).rules(), clock(), max_users=config.rate_limit.max_users, make=buckets)
        self._stats, recent = Stats(clock()), RecentCalls()
        self._telemetry = telemetry_of(config.telemetry, BoundedNames(self._label, lambda: self._assembly.backends), clock)
        traces = self._telemetry.recorders if self._telemetry else ()  # first: the log has a call's trace
        books = (self._stats, recent, Metrics(self.registry), PrincipalMetrics(self.registry), AccessLog())
        recorders = (*traces, Account(self._label, *books))
        leases = None if self.state is None else SlotLeases(self.state.nudge, asyncio.get_running_loop().call_later)
        homes = ResponseHomes() if self.state is None else shared_responses(self.state, clock)
        self._shared = Shared(
            self._limiter, recorders, clock, self._stats.windows.gap, homes, leases=leases, state=self.state, lender=credit
        )
        if link is not None and link.secret:  # else each worker's calls have a prefix cache of their own at the engines
            self._shared = replace(self._shared, salt_secret=link.secret)
        self._assembly = Assembly(config, self._shared, None, self._on_health)
        self._assembly.take_over(None)
        if self.state is not None and leases is not None:
            self.state.join(leases)
            self.state.join(HealthNews(self._watched))
        write, self._end_audit = audit_sink(config.audit.file)
        self.audit = AuditLog(write)
        self._failures = Failures(self.audit)
        self._shared_keys = None if self.state is None else shared_keys(config.auth, self.state, self.audit)
        self._access = AccessAssembly(config, self._failures, self.audit, shared=self._shared_keys)
        self._retired: list[Assembly] = []
        self.registry.register(BackendCollector(lambda: self._assembly.backends, clock=clock))
        self.reloads = ReloadLog()
        self.registry.register(ReloadCollector(self.reloads))
        self.registry.register(ProcessFacts())
        self.registry.register(AccessCollector(self._failures, lambda: self._access))
        self._lag = LoopLag(self.registry, clock)
        self.registry.register(SpanCollector(self._telemetry))
        self.registry.register(StateCollector(self.state))
        self._overview = Overview(lambda: self._assembly, self._stats, recent, self.reloads, clock=clock, state=self.state)
        self._counts, self._whole = self._with_others(link)
        self.guard = Guard(_serving(self._assembly, self._access, None), recorders=recorders, clock=clock, audit=self.audit)
        inputs = CallInputs(self.guard, config.server.max_body_bytes)
        explainer = Explainer(lambda: self._assembly, clock=clock)
        self.services = Services(
            RouterService(self.guard, self._overview, inputs, whole=self._whole),
            AdminService(self.guard, self._whole, inputs, explainer=explainer, others=link),
        )
        self.grpc, self.admin_grpc = _grpc_servers(self.services, config, tls, shared=link is not None)
        if tls is not None:
            self.registry.register(tls)
        self._serving = True
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def config(self) -> Config:
        """The configuration in force."""
        return self._assembly.config

    @property
    def backends(self) -> tuple[Backend, ...]:
        """Those that serve calls now."""
        return tuple(self._assembly.backends.values())

    def trusts(self, peer: str) -> bool:
        """Whether the one at this address is a proxy that is believed, by the configuration in force."""
        return self.guard.serving.proxies.trusts(peer)

    def client_of(self, hops: str) -> str:
        """The network of the client behind such proxies; `hops` as X-Forwarded-For, with the nearest one at the end."""
        return self.guard.serving.proxies.network(hops)

    @property
    def active(self) -> int:
        """Calls under way."""
        return self._stats.active

    @property
    def held(self) -> int:
        """Bytes of the bodies of calls under way."""
        return self.guard.held

    async def scrape(self, accept: str) -> tuple[bytes, str]:
        """As `metrics`, of all workers where there are several."""
        return self.metrics(accept) if self._counts is None else await self._counts.metrics(accept)

    def metrics(self, accept: str) -> tuple[bytes, str]:
        """The metrics and their content type: Prometheus' text form, or OpenMetrics where an Accept header has it."""
        encode, content_type = choose_encoder(accept)
        return encode(self.registry), content_type

    @property
    def grpc_servers(self) -> list[GrpcServer]:
        """The gRPC servers: for all, or one for calls and one for operators."""
        return [self.grpc] if self.admin_grpc is None else [self.grpc, self.admin_grpc]

    async def start(self, host: str, port: int) -> int:
        """Begin to probe the backends and to serve gRPC; returns the gRPC port. Raises OSError when it is taken."""
        if self.state is not None:
            await self.state.start()  # first: calls find their share
        if self._shared_keys is not None:
            await self._shared_keys.first_read(FIRST_LOOK_SECONDS)
        self._assembly.discovery.start()
        with contextlib.suppress(TimeoutError):  # the first calls should find engines, but wait for no dead name server
            async with asyncio.timeout(FIRST_LOOK_SECONDS):
                await self._assembly.discovery.first_looks()
        bound = await self.grpc.start(host, port)
        self._assembly.start()
        self._access.start()
        self._tasks.add(asyncio.create_task(self._lag.run(), name="lexora-lag"))
        self._tasks.add(asyncio.create_task(self._sum_failures(), name="lexora-audit"))
        return bound

    async def reload(self, config: Config, tls: TlsContexts | None = None) -> None:
        """Put another configuration in force. Calls under way finish under the old one; new ones find the new one.

        `tls` is for `build_backends`. Raises OSError when a certificate or the file of keys cannot be used; then nothing
        has changed.
        """
        old, before = self._assembly, self._access
        made = partial(AccessAssembly, config, self._failures, self.audit, before, shared=self._shared_keys)
        access = await asyncio.to_thread(made)
        new = Assembly(config, self._shared, old, self._on_health, tls)
        rules, serving = Tenancy(config).rules(), _serving(new, access, self.guard.serving.reload)
        # All is built, and what follows cannot fail. Nothing awaits from here on: no call sees half of the change.
        new.take_over(old)
        self._assembly, self._access, self.guard.serving = new, access, serving
        self._limiter.configure(rules, max_users=config.rate_limit.max_users)
        new.start()
        access.start()
        new.dispatch()  # there may be more slots than before
        self._retired = [assembly for assembly in self._retired if assembly.busy]
        self._retired.append(old)
        await before.retire(access)
        await old.retire(new)

    def reload_with(self, reload: Callable[[], Awaitable[Reload]] | None) -> None:
        """Let the rpc Reload call this; with None it is refused."""
        self.guard.serving = replace(self.guard.serving, reload=reload)

    async def drain(self) -> None:
        """Take no new calls, return when those under way are done, and end what is left after `server.drain_timeout`."""
        guard, seconds = self.guard, self.config.server.drain_timeout
        guard.draining = True
        for server in self.grpc_servers:
            await server.drain()
        if guard.active:
            _log.info("draining", active=guard.active, timeout=seconds)
        if await guard.idle(seconds):
            return
        _log.warning("drain_timeout", active=guard.active)
        guard.abort()
        await guard.idle(ABORT_SECONDS)

    def hand_over(self) -> None:
        """Leave the gRPC ports to another process; what still comes is served."""
        for server in self.grpc_servers:
            server.hand_over()

    @property
    def empty(self) -> bool:
        """Whether after `hand_over` nothing is under way any more, and nothing can come."""
        return not self.guard.active and all(server.vacated for server in self.grpc_servers)

    async def stop(self) -> None:
        """Cancel what is left and close every connection."""
        await asyncio.gather(*(server.stop(grace=0) for server in self.grpc_servers))
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self.state is not None:
            await self.state.leave()  # when calls have ended: what they held is free
        await self._access.retire()
        self._failures.sums.flush()
        await asyncio.to_thread(self._end_audit)
        for assembly in (self._assembly, *self._retired):
            await assembly.stop()
        if self._telemetry is not None:
            await asyncio.to_thread(self._telemetry.close)

    async def _read_keys(self, _: bytes) -> bytes:
        """Another worker has edited the file of keys."""
        await self._access.read_file()
        return b""

    def _with_others(self, link: WorkerLink | None) -> tuple[WorkerCounts | None, WholeOverview]:
        """What is counted and seen by all workers; what they see alike is written down by one of them."""
        if link is None:
            return None, WholeOverview(self._overview)
        self.audit.first = lambda: link.first
        link.answer(KEYS, self._read_keys)
        counts = WorkerCounts(self.registry, link)
        whole = WholeOverview(self._overview, link, counts.inherited_stats)
        counts.with_stats(whole.counts)
        return counts, whole

    async def _sum_failures(self) -> None:
        while True:
            await asyncio.sleep(SUM_SECONDS)
            self._failures.sums.flush()

    def _watched(self) -> Iterator[Watched]:
        """All endpoints, for news of their health."""
        for backend in self._assembly.backends.values():
            for endpoint in backend.endpoints:
                yield backend.name, endpoint.address, endpoint.condition

    def _label(self, model: str) -> str:
        return self._assembly.routes.label(model)

    def _on_health(self) -> None:
        """Update the health service that load balancers watch."""
        serving = self._assembly.health() is not Health.UNHEALTHY
        if serving != self._serving and not self.guard.draining:
            self._serving = serving
            for server in self.grpc_servers:
                task = asyncio.create_task(server.set_serving(serving=serving))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)


def _coordinated(link: WorkerLink | None) -> WorkerOf | None:
    """What the workers of one machine share limits by."""
    return None if link is None else WorkerOf(link.coordinator, link.workers)


def _serving(assembly: Assembly, access: AccessAssembly, reload: Callable[[], Awaitable[Reload]] | None) -> Serving:
    proxies = TrustedProxies(assembly.config.server.trusted_proxies)
    return Serving(
        assembly.pipeline,
        access=access.access,
        keys=access.keys,
        forwarders=access.forwarders,
        meter=assembly.meter,
        classify=assembly.classify,
        foresee=assembly.foresee,
        proxies=proxies,
        reload=reload,
        default_model=assembly.routes.default_model,
    )


def _arriving_bytes(server: ServerConfig) -> int:
    """Bytes of messages that come slowly, as of HTTP's bodies that are being read."""
    return usable_memory() // ARRIVING_SHARE if server.max_buffered_bytes is None else server.max_buffered_bytes


def _grpc_servers(
    service: Services, config: Config, tls: ServerTls | None, *, shared: bool
) -> tuple[GrpcServer, GrpcServer | None]:
    """The server of calls, which is that of operators as well where these have no port of their own."""
    server = config.server
    apart = server.admin_grpc_port is not None

    def made(services: Sequence[str], *, channelz: bool) -> GrpcServer:
        secured = (
            None if tls is None else GrpcTls(tls.grpc_credentials(), server.tls.handshake_timeout, server.tls.grpc_requires)
        )
        return GrpcServer(
            service,
            max_body_bytes=server.max_body_bytes,
            write_timeout=server.write_timeout,
            max_age=server.max_connection_age,
            arriving=ArrivingRequests(_arriving_bytes(server)),
            tls=secured,
            services=services,
            with_reflection=server.reflection,
            with_channelz=channelz,
            shared=shared,
        )

    # Channelz has the addresses of all clients, and asks for no credentials.
    wanted = server.channelz
    here = not apart and not config.auth.enabled if wanted is None else wanted and not apart
    admin = made(SERVICES, channelz=wanted is not False) if apart else None
    return made((ROUTER,) if apart else SERVICES, channelz=here), admin


def _registry() -> CollectorRegistry:
    disable_created_metrics()  # type: ignore[no-untyped-call]  # as the library has it
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    return registry
