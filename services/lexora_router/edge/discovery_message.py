"""How a backend's endpoints are found, as a message of the contract."""

from lexora.v1 import health_pb2
from lexora_contract.times import duration
from lexora_router.fleet.backend import Backend


def discovery_message(backend: Backend, now: float) -> health_pb2.Discovery | None:
    """None where the addresses are configured."""
    found = backend.discovered
    if found is None:
        return None
    return health_pb2.Discovery(
        source=found.what,
        endpoints=len(backend.endpoints),
        problem=found.problem,
        failures=found.failures,
        since_success=None if found.succeeded_at is None else duration(max(0.0, now - found.succeeded_at)),
    )
