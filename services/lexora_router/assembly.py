"""Everything that follows from one configuration: backends, routes, probes and the pipeline. A reload makes a new one."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from secrets import token_bytes

from lexora_contract.answer import Choice
from lexora_contract.operations import RESPONSES
from lexora_contract.port import Sink
from lexora_router.call import Call, Endpoint, Handler, Target, WholeAnswer
from lexora_router.choosing.build import Known, build_chooser, pinned, recall
from lexora_router.config import Config
from lexora_router.discovery.discovery import Discovery
from lexora_router.engines.transport import Transport
from lexora_router.errors import QueueFull, UnsupportedByBackend
from lexora_router.fleet.backend import Backend, Conditions, Health, TlsContexts, addresses_of, build_backends, combine
from lexora_router.fleet.background import survived
from lexora_router.fleet.catalogue import Catalogue
from lexora_router.fleet.probe import Prober
from lexora_router.fleet.routes import ModelRoutes, PinnedRoutes
from lexora_router.fleet.scrape import Scraper
from lexora_router.fleet.tenants import Tenancy, input_estimate, total_estimate
from lexora_router.layers.authorize import Authorization
from lexora_router.layers.observe import Recorder
from lexora_router.layers.rate_limit import Lender, Meter, SharedMeter
from lexora_router.layers.retry import RetrySettings
from lexora_router.layers.timeouts import Gaps, unrecorded
from lexora_router.leases.slots import SlotLeases
from lexora_router.pipeline import Parts, around, build, stored
from lexora_router.policy.backoff import Backoff
from lexora_router.policy.cache_salt import CacheSalts
from lexora_router.policy.rate_limiter import RateLimiter
from lexora_router.policy.response_homes import Home, ResponseHomes
from lexora_router.policy.retry_budget import RetryBudget
from lexora_router.resume.eligibility import ResumeSource
from lexora_router.state.link import StateLink

JUDGE_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Shared:
    """What outlives a configuration: tenants' balances, leases, the recorders of calls. `clock` is monotonic, in seconds."""

    limiter: RateLimiter
    recorders: tuple[Recorder, ...]
    clock: Callable[[], float]
    gaps: Gaps = unrecorded
    homes: ResponseHomes = field(default_factory=ResponseHomes)
    state: StateLink | None = None  # None: nothing is shared with other replicas
    salt_secret: bytes = field(default_factory=lambda: token_bytes(32), repr=False)  # where none is configured
    lender: Lender | None = None  # where replicas share the limits
    leases: SlotLeases | None = None  # of slots, where replicas share them


class Assembly:
    """One configuration at work. Make it inside the event loop; `take_over`, `start`, then `stop`.

    To make one changes nothing of what is at work: only `take_over` does, which cannot fail. Backends whose configuration is
    the same as in `previous` are taken over with their queues and connections. Others keep their queues, and endpoints with
    the same address their condition and their count of attempts in flight, also when they were away for some reloads; a call
    that waits goes to the backend as it is by then, with the timeouts and the name of the model that it came with.

    `on_health` is called when a probe has found another state of an endpoint. `tls` is for `build_backends`. Raises OSError
    when a certificate cannot be used.
    """

    def __init__(
        self,
        config: Config,
        shared: Shared,
        previous: "Assembly | None",
        on_health: Callable[[], None],
        tls: TlsContexts | None = None,
    ) -> None:
        clock = shared.clock
        self.config = config
        self._on_health = on_health
        self.budgets = _budgets(config, previous)
        self._left: list[Transport] | None = None  # of a retired one: what its successor has not taken over
        self.conditions: Conditions = Conditions() if previous is None else previous.conditions
        known = previous.backends if previous else {}
        found = None if previous is None else previous.discovery
        self.discovery: Discovery = Discovery(config, found, addresses_of(known.values()), clock)
        self.backends: dict[str, Backend] = build_backends(
            config, clock, known, tls, self.conditions, discovery=self.discovery, leases=shared.leases
        )
        self._leases = shared.leases
        self.catalogue = Catalogue(self.backends, ttl=config.catalogue.ttl, timeout=config.catalogue.timeout, clock=clock)
        self.routes = ModelRoutes(config, self.backends, self.catalogue)
        health = config.health
        self.prober = Prober(
            self.backends,
            interval=health.interval,
            doubt=health.interval / health.unhealthy_threshold,
            timeout=health.timeout,
            probed=self._probed,
            clock=clock,
        )
        self.scraper = Scraper(self.backends.values(), timeout=health.timeout, clock=clock)
        self.tenancy = tenancy = Tenancy(config)
        # Where callers are known a key may limit tokens, whatever the configuration does.
        every = tenancy.limits_tokens()
        estimate = self.total_estimate if every or config.auth.enabled else None
        apart = tenancy.parts if config.auth.enabled else None
        enabled = config.rate_limit.enabled
        kind = Meter if shared.lender is None else partial(SharedMeter, lender=shared.lender)
        self.meter = kind(shared.limiter, tenancy.tier, input_estimate, estimate, clock, apart, every) if enabled else None
        salts = CacheSalts(config.auth.salt_secret() or shared.salt_secret, config.auth.share_prefix_cache)
        self.authorization = Authorization(config.default_model() or "", salts.of) if config.auth.enabled else None
        parts = self._parts(shared)
        # A client's call has passed its limit before it makes the router ask; what asks never asks for `auto` itself.
        own = replace(parts, meter=None, authorization=None, resumable=None, routes=PinnedRoutes(self.routes, pinned(config)))
        self.known: Known = recall(config, previous.known if previous else None)
        self.chooser = build_chooser(config, self.routes, self.known, build(own), clock)
        routed, held = build(replace(parts, auto=self.chooser.resolve_auto)), stored(parts, self._places)
        self.pipeline: Handler = lambda call, sink: (held if call.response_id else routed)(call, sink)
        self._around = around(parts)
        self._tasks: list[asyncio.Task[None]] = []

    def take_over(self, previous: "Assembly | None") -> None:
        """Let queues, conditions and listings that live on follow this configuration. Cannot fail, and does not wait."""
        for backend in self.backends.values():
            backend.take_over(self.conditions)
        if self._leases is not None:
            self._leases.follow(backend.pool.lease for backend in self.backends.values() if backend.pool.lease is not None)
        if previous is not None:
            self.catalogue.adopt(previous.catalogue)
        self.discovery.follow(self._moved)

    def start(self) -> None:
        """Begin to find engines, to probe, to read engines' metrics, to ask for models and to look for outliers."""
        self.discovery.start()
        self._tasks = [
            asyncio.create_task(self.prober.run(), name="lexora-probe"),
            asyncio.create_task(self.scraper.run(), name="lexora-scrape"),
            asyncio.create_task(self.catalogue.keep_fresh(), name="lexora-catalogue"),
            asyncio.create_task(self._judge(), name="lexora-ejection"),
        ]

    async def classify(self, task: str, candidates: Sequence[str], call: Call) -> Choice:
        """The model that fits a task, as a call of its own that is seen and limited. Raises RouterError."""

        async def choose(call: Call, _: Sink) -> None:
            call.receipt.auto = await self.chooser.choose(task, candidates, call)

        await self._around(choose)(call, WholeAnswer(bool))
        assert call.receipt.auto is not None
        return call.receipt.auto

    def foresee(self, call: Call, size: int) -> None:
        """Raise what is sure of a call before its body of `size` bytes is read: RateLimited, or QueueFull at every backend.

        Until a tenant or a user is named the body may do that. Charges and changes nothing.
        """
        if self.meter is not None and (call.account or call.user):
            self.meter.foresee(call)
        refusals: list[QueueFull] = []
        for backend in self.backends.values():
            try:
                backend.pool.foresee(size)
            except QueueFull as full:
                refusals.append(full)
            else:
                return
        if refusals:
            raise min(refusals, key=lambda full: full.retry_after)

    async def retire(self, successor: "Assembly") -> None:
        """End the work in the background, after another assembly has taken over; calls under way go on."""
        kept = {id(backend.transport) for backend in successor.backends.values()}
        self._left = [backend.transport for backend in self.backends.values() if id(backend.transport) not in kept]
        for transport in self._left:
            transport.retire()
        await self.discovery.retire(successor.discovery)
        await self._end_tasks()

    @property
    def busy(self) -> bool:
        """Of a retired one: whether calls still use a connection, or wait for a listing."""
        return self.catalogue.refreshing or any(transport.open for transport in self._left or ())

    async def stop(self) -> None:
        """End everything: the work in the background, and every connection that no successor has taken over."""
        await self.discovery.retire()
        await self._end_tasks()
        await self.chooser.close()
        await self.catalogue.close()
        transports = [backend.transport for backend in self.backends.values()] if self._left is None else self._left
        for transport in transports:
            transport.close()

    async def _end_tasks(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def total_estimate(self, call: Call) -> int:
        """Tokens that a call may use in all, by what is known of its model."""
        return total_estimate(call, self.routes.context(call.model))

    def health(self) -> Health:
        """State of all backends together."""
        return combine([backend.health() for backend in self.backends.values()])

    def _probed(self, backend: Backend, changed: bool) -> None:
        """Let the calls that wait for this backend go on: an endpoint may be back, or its breaker's time over."""
        backend.pool.dispatch()
        if changed:
            self._on_health()

    def dispatch(self) -> None:
        """Let the calls that wait look for an endpoint."""
        for backend in self.backends.values():
            backend.pool.dispatch()

    def _moved(self, name: str) -> None:
        """The addresses of a backend have changed. All that goes by its endpoints follows at once."""
        self.backends[name].move(self.conditions)
        self.prober.follow()
        self.scraper.follow()
        self.catalogue.follow(name)
        self._probed(self.backends[name], True)

    async def _judge(self) -> None:
        while True:
            await asyncio.sleep(JUDGE_SECONDS)
            for backend in self.backends.values():
                with survived("ejection", backend=backend.name):
                    backend.pool.judge()

    def _parts(self, shared: Shared) -> Parts:
        config, retry = self.config, self.config.retry
        return Parts(
            routes=self.routes,
            recorders=shared.recorders,
            gaps=shared.gaps,
            homes=shared.homes,
            pools={name: backend.pool for name, backend in self.backends.items()},
            retry=RetrySettings(
                retry.max_retries,
                Backoff(retry.base_delay, retry.exponential_base, retry.max_delay),
                retry.respect_retry_after,
                retry.max_retry_after,
                retry.on_timeout,
            ),
            budgets=self.budgets,
            meter=self.meter,
            fallback_on_rate_limit=config.fallback.on_rate_limit if config.fallback.enabled else None,
            clock=shared.clock,
            resumable=self._resumable(),
            refusal=self._refusal if any(backend.adapter.serves for backend in self.backends.values()) else None,
            authorization=self.authorization,
            traced=config.telemetry.otlp_endpoint is not None,
        )

    def _places(self, home: Home | None) -> list[tuple[Target, Endpoint]]:
        """The endpoint of a home, every one when there is none."""
        return [
            (Target(backend.name, backend.timeouts, home.served if home is not None else ""), endpoint)
            for backend in self.backends.values()
            for endpoint in backend.endpoints
            if backend.refusal(RESPONSES) is None
            if home is None or (home.backend, home.address) == (backend.name, endpoint.address)
        ]

    def _refusal(self, target: Target, path: str) -> UnsupportedByBackend | None:
        return self.backends[target.backend].refusal(path)

    def _resumable(self) -> dict[str, ResumeSource]:
        """Pools whose streams another endpoint may continue, as far as their engines can."""
        mode = self.config.failover.resume
        adapters = {name: backend.adapter for name, backend in self.backends.items()}
        sources = {
            name: ResumeSource(
                adapters[name].token_ids, mode == "text" and adapters[name].continues_text, partial(_count, backend)
            )
            for name, backend in self.backends.items()
            if mode and (len(backend.endpoints) > 1 or backend.discovered is not None)
        }
        return {name: source for name, source in sources.items() if source.ids or source.text}


def _count(backend: Backend) -> int:
    return len(backend.endpoints)


def _budgets(config: Config, previous: Assembly | None) -> dict[str, RetryBudget]:
    """The retries that may be made, by backend: a reload grants no new ones while the terms are the same."""
    terms = (config.retry.budget, config.retry.budget_floor)
    known: dict[str, RetryBudget] = {}
    if previous is not None and terms == (previous.config.retry.budget, previous.config.retry.budget_floor):
        known = previous.budgets
    return {name: known.get(name) or RetryBudget(share=terms[0], floor=terms[1]) for name in config.backends()}
