"""`lexora idle`."""

from typing import TYPE_CHECKING, Annotated

import typer

from lexora_cli.reach import DEFAULT, Reach, asks_router
from lexora_cli.screen import fail, plain

if TYPE_CHECKING:
    from lexora.v1.health_pb2 import HealthResponse

Quiet = Annotated[
    float,
    typer.Option(min=0, max=3600, metavar="SECONDS", help="For how long there must have been no call."),
]
AtMost = Annotated[float, typer.Option(min=0, max=86400, metavar="SECONDS", help="Wait no longer than this.")]
# Between two looks.
INTERVAL_SECONDS = 0.25


@asks_router
def idle(router: Reach = DEFAULT, quiet: Quiet = 5.0, at_most: AtMost = 60.0) -> None:
    """Wait until a router has no calls.

    For a hook before a stop: a balancer that has forgotten the router sends it nothing more. No
    credentials are needed.

    Exit code 1 when there were calls to the end, or the router does not answer.

    \b
    Examples:
      lexora idle
      lexora idle --quiet 5 --at-most 120
    """
    import time

    from lexora_cli.client import RouterFailure

    started, since = time.monotonic(), None
    try:
        with router.client() as client:
            while True:
                calls, now = _calls(client.health()), time.monotonic()
                since = None if calls else since or now
                if since is not None and now - since >= quiet:
                    break
                if now - started >= at_most:
                    fail(f"not idle after {at_most:g} seconds; calls under way or waiting: {calls}")
                time.sleep(INTERVAL_SECONDS)
    except RouterFailure as failure:
        fail(str(failure))
    plain(f"no calls for {quiet:g} seconds")


def _calls(health: "HealthResponse") -> int:
    """Calls under way at engines, and those that wait for one."""
    backends = health.backends.values()
    return sum(backend.waiting + sum(endpoint.in_flight for endpoint in backend.endpoints) for backend in backends)
