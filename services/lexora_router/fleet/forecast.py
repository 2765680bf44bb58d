"""What a pool would do with a call."""

from dataclasses import dataclass

from lexora_router.errors import NoHealthyEndpoint, QueueFull, RequestQuarantined
from lexora_router.fleet.endpoint import HttpEndpoint


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a pool would do with a call: refuse it, let it wait at a `position` (1 is next), or, at 0, give it a slot at once.

    `free` are the endpoints that could get a call now; `wait` is about how long, in seconds, None while unknown.
    """

    free: tuple[HttpEndpoint, ...]
    position: int = 0
    wait: float | None = None
    refusal: NoHealthyEndpoint | QueueFull | RequestQuarantined | None = None
