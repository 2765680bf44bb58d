"""`lexora top`."""

from typing import Annotated

import typer

from lexora_cli.reach import DEFAULT, Reach, asks_router
from lexora_cli.screen import fail

Interval = Annotated[float, typer.Option("--interval", "-n", min=0.2, max=60, metavar="SECONDS", help="Between two looks.")]
Once = Annotated[bool, typer.Option("--once", help="Print one picture and leave; also what happens when it is piped.")]


@asks_router
def top(router: Reach = DEFAULT, interval: Interval = 1.0, once: Once = False) -> None:
    """Watch a router live, until q or Ctrl-C.

    Rates, latencies, endpoints, models and the last calls.
    Exit code 1 when the router does not answer at the start; later it is waited for.

    \b
    Examples:
      lexora top
      lexora top --router 10.0.0.5:50051 --interval 5
      lexora top --once | less
    """
    from lexora_cli.client import RouterFailure
    from lexora_cli.screen import out, show
    from lexora_cli.top_live import look, watch
    from lexora_cli.top_screen import picture

    with router.client() as client:
        try:
            first = look(client)
        except RouterFailure as failure:
            fail(str(failure))
        console = out()
        if once or not console.is_terminal:
            show(picture(first, router.address).split("\n"))
        else:
            watch(client, first, router.address, interval, console)
