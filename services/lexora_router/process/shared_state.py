"""The link to what replicas share, where one is configured. Its client is imported here only: others start without it."""

from collections.abc import Callable

from lexora_router.config.state import StateConfig
from lexora_router.state.link import StateLink
from lexora_router.state.programs import PROGRAMS


def link_of(config: StateConfig, clock: Callable[[], float]) -> StateLink | None:
    """The link of this process, to be started; None where it has all for itself."""
    address = config.address()
    if address is None:
        return None
    from lexora_router.state.valkey_state import Security, ValkeyState  # noqa: PLC0415 - 80 ms, 7 MB

    files = config.tls
    store = ValkeyState(address, PROGRAMS, namespace=config.namespace, security=Security(files.ca, files.cert, files.key))
    return StateLink(store, PROGRAMS, timeout=config.timeout, clock=clock)
