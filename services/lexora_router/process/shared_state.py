"""The link to what replicas share, if there is something. Valkey's client is imported here only: others start without it."""

from collections.abc import Callable
from dataclasses import dataclass

from lexora_router.config.state import StateConfig
from lexora_router.state.link import StateLink
from lexora_router.state.port import SharedState
from lexora_router.state.program import Programs


@dataclass(frozen=True, slots=True)
class WorkerOf:
    """Of a worker: the socket of the coordinator, and how many workers there are."""

    coordinator: str
    workers: int


def link_of(config: StateConfig, clock: Callable[[], float], worker: WorkerOf | None = None) -> StateLink | None:
    """The link of this process, to be started; None where it has all for itself.

    Workers share by Valkey where one is configured, with those of other machines, else by their coordinator.
    """
    if config.url is None and worker is None:
        return None
    from lexora_router.state.programs import PROGRAMS  # noqa: PLC0415 - off is free

    store = _valkey(config, PROGRAMS) or _coordinator(worker)
    assert store is not None
    return StateLink(store, PROGRAMS, timeout=config.timeout, clock=clock, replicas=worker.workers if worker else 1)


def _valkey(config: StateConfig, programs: Programs) -> SharedState | None:
    address = config.address()
    if address is None:
        return None
    from lexora_router.state.valkey_state import Security, ValkeyState  # noqa: PLC0415 - 80 ms, 7 MB

    files = config.tls
    return ValkeyState(address, programs, namespace=config.namespace, security=Security(files.ca, files.cert, files.key))


def _coordinator(worker: WorkerOf | None) -> SharedState | None:
    if worker is None:
        return None
    from lexora_router.state.socket_state import SocketState  # noqa: PLC0415 - of workers only

    return SocketState(worker.coordinator)
