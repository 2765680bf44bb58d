"""Each pool takes as many calls as its endpoints have slots; the others wait their turn."""

from collections.abc import Mapping
from typing import Protocol

from lexora_contract.port import Sink
from lexora_router.call import Call, Handler, Lease


class Place(Lease, Protocol):
    """A lease that its owner can close."""

    def close(self) -> None:
        """Give the slot back for good."""


class Pool(Protocol):
    """The slots of one pool."""

    async def admit(self, call: Call) -> Place:
        """Wait for a slot; raises QueueFull or NoHealthyEndpoint."""


class Admission:
    """Holds a slot of the target's pool from dispatch to the last token, and gives it back on every way out."""

    def __init__(self, inner: Handler, *, pools: Mapping[str, Pool]) -> None:
        self._inner = inner
        self._pools = pools

    async def __call__(self, call: Call, sink: Sink) -> None:
        """Wait, then serve the call."""
        assert call.target is not None
        lease = await self._pools[call.target.backend].admit(call)
        call.lease = lease
        try:
            await self._inner(call, sink)
        finally:
            call.lease = None
            lease.close()
