"""The whole policy, in the order a call meets it, composed in one place."""

import random
from collections.abc import Callable
from functools import partial

from lexora_router.handler import Handler, compose
from lexora_router.layers.balance import Balance
from lexora_router.layers.deadline import Deadline
from lexora_router.layers.observe import Observe, Recorder
from lexora_router.layers.resolve import Resolve, Routes
from lexora_router.layers.timeouts import EngineTimeouts


def build(*, routes: Routes, recorders: tuple[Recorder, ...], clock: Callable[[], float]) -> Handler:
    """The handler of every call. `clock` is the event loop's, in seconds."""
    return compose(
        partial(Observe, recorders=recorders, clock=clock),  # outermost: sees every outcome
        Deadline,  # above everything that waits
        partial(Resolve, routes=routes),  # model -> target, before anything that depends on it
        partial(EngineTimeouts, clock=clock),  # around one attempt: silence costs an attempt, not the call
        around=Balance(randrange=random.randrange, clock=clock),  # picks an endpoint
    )
