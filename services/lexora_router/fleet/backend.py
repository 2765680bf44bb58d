"""A configured backend, built: its endpoints, its timeouts and its connections."""

import random
import ssl
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from weakref import WeakValueDictionary

from lexora_router.adapters import Adapter
from lexora_router.call import Target, Timeouts
from lexora_router.config import BackendConfig, Config
from lexora_router.config.engine_tls import EngineTls
from lexora_router.discovery.discovered import Discovered
from lexora_router.discovery.discovery import Discovery
from lexora_router.discovery.source import address
from lexora_router.engines.tls import EngineSecurity
from lexora_router.engines.transport import Transport
from lexora_router.errors import UnsupportedByBackend
from lexora_router.fleet.auto_limit import START, AutoLimit, SharedAutoLimit
from lexora_router.fleet.endpoint import HttpEndpoint, address_of
from lexora_router.fleet.endpoint_health import Condition
from lexora_router.fleet.pool import Pool
from lexora_router.fleet.tenants import input_estimate
from lexora_router.fleet.terms import Terms, terms_of
from lexora_router.fleet.translating_endpoint import TranslatingEndpoint
from lexora_router.leases.slots import EndpointLease, SlotLeases


class Health(Enum):
    """State of a backend: what its endpoints' states come to."""

    UNKNOWN = "unknown"
    HEALTHY = "healthy"
    DEGRADED = "degraded"
    UNHEALTHY = "unhealthy"


@dataclass(slots=True, eq=False)
class Backend:
    """One engine protocol at one or several interchangeable endpoints.

    Where these are discovered there may be none for a while, and `move` changes them, and what depends on their number.
    """

    name: str
    config: BackendConfig
    adapter: Adapter
    endpoints: tuple[HttpEndpoint, ...]
    transport: Transport
    timeouts: Timeouts
    pool: Pool
    terms: Terms
    built_from: tuple[object, ...]
    discovered: Discovered | None
    make: "Callable[[str, Condition], HttpEndpoint]"
    terms_for: Callable[[int], Terms]
    found: dict[str, HttpEndpoint] = field(default_factory=dict)  # by address, as a source has it

    def target(self, model: str) -> Target:
        """Where a call for this model goes; the name is the engine's after `model_mapping`."""
        return Target(self.name, self.timeouts, self.config.model_mapping.get(model, model), name=model)

    def fallback_target(self, model: str) -> Target:
        """Where a call for another backend's model goes when that one fails; `fallback_models` wins over `model_mapping`."""
        served = self.config.fallback_models.get(model)
        return Target(self.name, self.timeouts, served, substitute=True) if served else self.target(model)

    def take_over(self, conditions: "Conditions") -> None:
        """Let pool and conditions, which may be those of an earlier backend, follow this one's terms. Cannot fail."""
        for endpoint in self.endpoints:
            endpoint.condition.follow(self.terms.rules)
            conditions[self.name, endpoint.address] = endpoint.condition
        self.pool.follow(self.endpoints, self.terms)

    def move(self, conditions: "Conditions") -> None:
        """Have the endpoints that are discovered by now. Calls that run at one that is gone end there, under its slot."""
        self.place(conditions)
        self.take_over(conditions)
        self.transport.keep_only(endpoint.base for endpoint in self.endpoints)

    def place(self, conditions: "Conditions") -> None:
        """Make the endpoints that are discovered by now; the pool follows at `take_over`."""
        if self.discovered is None:
            return
        # Most addresses stay: to take 1,000 of them apart again would hold up all calls for 20 ms.
        fresh = [each for each in self.discovered.addresses if each not in self.found]
        known = {endpoint.address: endpoint for endpoint in self.endpoints}
        for each, base in zip(fresh, self.config.discovered(fresh), strict=True):
            at = address_of(base)
            if at not in known:
                known[at] = self._new(base, conditions)
            self.found[each] = known[at]
        self.found = {each: self.found[each] for each in self.discovered.addresses}
        self.endpoints = tuple(dict.fromkeys(self.found.values()))
        self.terms = self.terms_for(len(self.endpoints))

    def _new(self, base: str, conditions: "Conditions") -> HttpEndpoint:
        """An endpoint that joins. Where calls have others to go to it has to show first that it answers."""
        condition = conditions.get((self.name, address_of(base)))
        if condition is None:
            condition = Condition(self.terms.rules)
            if self.endpoints:
                condition.joined()
        return self.make(base, condition)

    @property
    def settled(self) -> bool:
        """Whether its endpoints are known, or are known to be unknown: no first look is under way."""
        return self.discovered is None or self.discovered.looked_at is not None

    def refusal(self, path: str) -> UnsupportedByBackend | None:
        """Why calls of an operation cannot be served here; None where they can."""
        serves = self.adapter.serves
        if serves is None or path in serves:
            return None
        kind, served = self.config.type, ", ".join(sorted(serves))
        return UnsupportedByBackend(f"Backend `{self.name}` (type {kind}) does not serve {path}; it serves {served}.", "model")

    def health(self) -> Health:
        """What the last probes and attempts come to; without endpoints there is nothing to call."""
        if not self.endpoints and self.settled:
            return Health.UNHEALTHY
        return combine([_state(endpoint) for endpoint in self.endpoints])


def combine(states: list[Health]) -> Health:
    """Healthy when all are, unhealthy when none is, else degraded; unknown ones have no say unless all are."""
    known = [state for state in states if state is not Health.UNKNOWN]
    if not known:
        return Health.UNKNOWN
    if all(state is Health.HEALTHY for state in known):
        return Health.HEALTHY
    return Health.UNHEALTHY if all(state is Health.UNHEALTHY for state in known) else Health.DEGRADED


TlsContexts = Mapping[EngineTls, ssl.SSLContext]
# By backend and address. Weak: of an endpoint that is configured no more it lives as long as calls run there, and when the
# endpoint is back before they have ended, they count.
Conditions = WeakValueDictionary[tuple[str, str], Condition]


def build_backends(
    config: Config,
    clock: Callable[[], float],
    previous: Mapping[str, Backend] | None = None,
    tls: TlsContexts | None = None,
    conditions: Conditions | None = None,
    *,
    discovery: Discovery | None = None,
    leases: SlotLeases | None = None,
) -> dict[str, Backend]:
    """Every configured backend by name; no connection is made yet. Raises OSError when a certificate cannot be used.

    A backend that was configured in the same way before is in it as it is. Others share the pool of the one of the same
    name, and the endpoints' conditions and where their moving limits stood; these go on as before until `take_over`. `tls`
    has what the files of `config.tls` come to; those that it lacks are read here. `conditions` are those
    of all endpoints that there are, and `discovery` has the addresses of those that are not in the configuration. With `leases`
    the slots are shared with other replicas.
    """
    known = previous or {}
    alive = Conditions() if conditions is None else conditions
    found = discovery or Discovery(config, None, {}, clock)
    return {
        name: _same(known.get(name), backend, config)
        or _build(
            name,
            backend,
            config,
            known.get(name),
            alive,
            clock=clock,
            tls=tls or {},
            discovered=found.of(name),
            leases=leases,
        )
        for name, backend in config.backends().items()
    }


def addresses_of(backends: Iterable[Backend]) -> dict[str, tuple[str, ...]]:
    """The addresses of the endpoints of each backend, as sources have them."""
    return {
        backend.name: tuple(address(endpoint.base.host or "", endpoint.base.port or 80) for endpoint in backend.endpoints)
        for backend in backends
    }


def _same(known: Backend | None, config: BackendConfig, whole: Config) -> Backend | None:
    """The known backend, if nothing that it was built from has changed."""
    if known is None or known.config != config or known.built_from != _built_from(whole):
        return None
    return known


def _built_from(whole: Config) -> tuple[object, ...]:
    return (
        whole.routing.answer_model,
        whole.health,
        whole.queue,
        whole.tenants,
        whole.server.max_response_bytes,
        whole.auth.enabled,
    )


def _build(
    name: str,
    config: BackendConfig,
    whole: Config,
    known: Backend | None,
    conditions: Conditions,
    *,
    clock: Callable[[], float],
    tls: TlsContexts,
    discovered: Discovered | None,
    leases: SlotLeases | None,
) -> Backend:
    limits = {each.address: each.auto.limit for each in known.endpoints if each.auto is not None} if known else {}
    security = EngineSecurity(config.tls, tls.get(config.tls))
    transport = Transport(connect_timeout=config.connect_timeout, clock=clock, security=security)
    adapter = config.adapter()
    family = TranslatingEndpoint if adapter.translators else HttpEndpoint
    first = terms_of(config, whole, len(config.endpoints), str if discovered is None else discovered.in_words)

    def make(url: str, condition: Condition) -> HttpEndpoint:
        lease = None if leases is None else leases.endpoint(name, address_of(url), condition)
        return family(
            name,
            url,
            adapter=adapter,
            transport=transport,
            condition=condition,
            limit=config.max_concurrency,
            auto=_auto(config, limits.get(address_of(url), START), lease),
            lease=lease,
            name_as_asked=whole.routing.answer_model == "asked",
            max_response_bytes=whole.server.max_response_bytes,
            clock=clock,
        )

    endpoints = tuple(make(url, conditions.get((name, address_of(url))) or Condition(first.rules)) for url in config.endpoints)
    pool = known.pool if known else _pool(name, endpoints, first, clock, leases)
    timeouts = Timeouts(config.first_token, config.idle, config.total_timeout)
    terms_for = partial(first.with_endpoints, whole=whole)
    built_from = _built_from(whole)
    backend = Backend(
        name, config, adapter, endpoints, transport, timeouts, pool, first, built_from, discovered, make, terms_for
    )
    backend.place(conditions)
    return backend


def _pool(
    name: str, endpoints: tuple[HttpEndpoint, ...], terms: Terms, clock: Callable[[], float], leases: SlotLeases | None
) -> Pool:
    lease = None if leases is None else leases.pool(name)
    return Pool(name, endpoints, terms, cost=input_estimate, randrange=random.randrange, clock=clock, lease=lease)


def _auto(config: BackendConfig, start: int, lease: EndpointLease | None) -> AutoLimit | None:
    """The moving limit of an endpoint, which begins where the one of an earlier configuration stood."""
    if config.concurrency != "auto" or config.max_concurrency is None:
        return None
    terms = config.min_concurrency, config.max_concurrency, config.scrape_interval, start
    return AutoLimit(*terms) if lease is None else SharedAutoLimit(lease, *terms)


def _state(endpoint: HttpEndpoint) -> Health:
    if endpoint.condition.healthy is None:
        return Health.UNKNOWN
    return Health.HEALTHY if endpoint.condition.healthy else Health.UNHEALTHY
