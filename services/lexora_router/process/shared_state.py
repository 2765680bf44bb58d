"""The link to what replicas share, if there is something. Valkey's client is imported here only: others start without it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lexora_router.access.audit import AuditLog
from lexora_router.config.auth import AuthConfig
from lexora_router.config.state import StateConfig
from lexora_router.policy.response_homes import ResponseHomes
from lexora_router.state.address import Address
from lexora_router.state.link import StateLink
from lexora_router.state.port import SharedState

if TYPE_CHECKING:
    from lexora_router.access.shared_keys import SharedKeys
    from lexora_router.leases.credit import Credit
    from lexora_router.state.valkey_state import ValkeyState


@dataclass(frozen=True, slots=True)
class WorkerOf:
    """Of a worker: the socket of the coordinator, where there is one, and how many workers there are."""

    coordinator: str | None
    workers: int


def link_of(config: StateConfig, clock: Callable[[], float], worker: WorkerOf | None = None) -> StateLink | None:
    """The link of this process, to be started; None where it has all for itself.

    Workers share by Valkey where one is configured, with those of other machines, else by their coordinator. Before the store
    has answered each takes its share of what the workers of this machine may have.
    """
    address = config.address()
    store: SharedState
    if address is not None:
        store = valkey(config, address)
    elif worker is not None and worker.coordinator is not None:
        store = _coordinator(worker.coordinator)
    else:
        return None
    from lexora_router.state.programs import PROGRAMS  # noqa: PLC0415 - off is free

    return StateLink(store, PROGRAMS, timeout=config.timeout, clock=clock, replicas=worker.workers if worker else 1)


def valkey(config: StateConfig, address: Address) -> "ValkeyState":
    """The configured store."""
    from lexora_router.state.programs import PROGRAMS  # noqa: PLC0415
    from lexora_router.state.tls_context import Security  # noqa: PLC0415
    from lexora_router.state.valkey_state import ValkeyState  # noqa: PLC0415 - 80 ms, 7 MB

    files = config.tls
    return ValkeyState(address, PROGRAMS, namespace=config.namespace, security=Security(files.ca, files.cert, files.key))


def _coordinator(path: str) -> SharedState:
    from lexora_router.state.socket_state import SocketState  # noqa: PLC0415 - of workers only

    return SocketState(path)


def credit_of(link: StateLink, clock: Callable[[], float]) -> "Credit":
    """The rate limits' part in the exchanges of this link."""
    from lexora_router.leases.credit import Credit  # noqa: PLC0415 - off is free

    credit = Credit(link, clock)
    link.join(credit)
    return credit


def shared_keys(auth: AuthConfig, link: StateLink, audit: AuditLog) -> "SharedKeys | None":
    """The keys that replicas share, which follow the link from now on; None where keys are not taken from there."""
    if "shared" not in auth.keys:
        return None
    from lexora_router.access.shared_keys import SharedKeys  # noqa: PLC0415 - off is free

    keys = SharedKeys(link, audit)
    link.join(keys)
    return keys


def shared_responses(link: StateLink, clock: Callable[[], float]) -> ResponseHomes:
    """The homes of stored responses that replicas share."""
    from lexora_router.leases.responses import SharedResponses  # noqa: PLC0415 - off is free

    homes = SharedResponses(link, clock)
    link.join(homes)
    return homes
