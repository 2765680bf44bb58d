"""A configured backend, built: its endpoints, its timeouts and its connections."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from lexora_router.backends.endpoint import HttpEndpoint
from lexora_router.backends.protocol import protocol_of
from lexora_router.backends.transport import Transport
from lexora_router.config import BackendConfig, Config
from lexora_router.handler import Target, Timeouts


class Health(Enum):
    """State of a backend: what its endpoints' states come to."""

    UNKNOWN = "unknown"
    HEALTHY = "healthy"
    DEGRADED = "degraded"
    UNHEALTHY = "unhealthy"


@dataclass(frozen=True, slots=True)
class Backend:
    """One engine protocol at one or several interchangeable endpoints."""

    name: str
    config: BackendConfig
    endpoints: tuple[HttpEndpoint, ...]
    transport: Transport
    timeouts: Timeouts

    def target(self, model: str) -> Target:
        """Where a call for this model goes; the name is the engine's after `model_mapping`."""
        served = self.config.model_mapping.get(model, model)
        return Target(self.name, self.endpoints, self.timeouts, served)

    def health(self) -> Health:
        """What the last probes and attempts come to."""
        return combine([_state(endpoint) for endpoint in self.endpoints])


def combine(states: list[Health]) -> Health:
    """Healthy when all are, unhealthy when none is, else degraded; unknown ones have no say unless all are."""
    known = [state for state in states if state is not Health.UNKNOWN]
    if not known:
        return Health.UNKNOWN
    if all(state is Health.HEALTHY for state in known):
        return Health.HEALTHY
    return Health.UNHEALTHY if all(state is Health.UNHEALTHY for state in known) else Health.DEGRADED


def build_backends(config: Config, clock: Callable[[], float]) -> dict[str, Backend]:
    """Every configured backend by name; nothing is opened yet."""
    return {name: _build(name, backend, config, clock) for name, backend in config.backends().items()}


def _build(name: str, config: BackendConfig, whole: Config, clock: Callable[[], float]) -> Backend:
    transport = Transport(connect_timeout=config.connect_timeout, clock=clock, ca_file=config.ca_file)
    protocol = protocol_of(config)
    endpoints = tuple(
        HttpEndpoint(
            name,
            address,
            protocol=protocol,
            transport=transport,
            stream_usage=config.stream_usage,
            max_response_bytes=whole.server.max_response_bytes,
            clock=clock,
        )
        for address in config.endpoints
    )
    timeouts = Timeouts(config.first_token, config.idle, config.total_timeout)
    return Backend(name, config, endpoints, transport, timeouts)


def _state(endpoint: HttpEndpoint) -> Health:
    if endpoint.healthy is None:
        return Health.UNKNOWN
    return Health.HEALTHY if endpoint.healthy else Health.UNHEALTHY
