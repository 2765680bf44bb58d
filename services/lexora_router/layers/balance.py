"""Which endpoint of the target's pool gets the attempt."""

from collections.abc import Callable

from lexora_router.handler import Call, Emit
from lexora_router.policy.picker import pick


class Balance:
    """The innermost handler: picks an endpoint and tries the call there.

    The attempt is counted when the endpoint is chosen, not when it is connected, or a burst would all go to one.
    """

    def __init__(self, *, randrange: Callable[[int], int], clock: Callable[[], float]) -> None:
        self._randrange = randrange
        self._clock = clock

    async def __call__(self, call: Call, emit: Emit) -> None:
        """Try the call on one endpoint of its target."""
        assert call.target is not None
        endpoints = call.target.endpoints
        endpoint = endpoints[pick(endpoints, self._randrange)]
        receipt = call.receipt
        receipt.endpoint = endpoint.address
        receipt.attempts += 1
        receipt.dispatched_at = self._clock()
        endpoint.in_flight += 1
        try:
            await endpoint.attempt(call, emit)
        finally:
            endpoint.in_flight -= 1
