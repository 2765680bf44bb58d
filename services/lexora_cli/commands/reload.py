"""`lexora reload`."""

from typing import TYPE_CHECKING

import typer

from lexora_cli.options import AsJson
from lexora_cli.reach import DEFAULT, Reach, asks_router
from lexora_cli.screen import fail, plain, print_json

if TYPE_CHECKING:
    from lexora.v1.reload_pb2 import ReloadReport
    from lexora_cli.client import RouterClient


def _last(client: "RouterClient") -> "ReloadReport":
    """The reload before, as far as these credentials may see it."""
    from lexora.v1.reload_pb2 import ReloadReport
    from lexora_cli.client import RouterFailure

    try:
        return client.stats().last_reload
    except RouterFailure as failure:
        if failure.reason != "PERMISSION_DENIED":
            raise
        return ReloadReport()


@asks_router
def reload(router: Reach = DEFAULT, as_json: AsJson = False) -> None:
    """Let a running router load its configuration again.

    Prints the result. The router reads the same file, variables and options as at its start; a configuration with
    mistakes is refused, and the old one stays. Exit code 1 when it was refused, or when the router does not answer.

    \b
    Examples:
      lexora reload
      lexora reload --router 10.0.0.5:50051 --json
    """
    from lexora.v1.reload_pb2 import RELOAD_RESULT_REFUSED
    from lexora_cli.client import RouterFailure
    from lexora_cli.reload_text import lines
    from lexora_contract.plain import plain as plain_data

    try:
        with router.client() as client:
            before = _last(client)
            report = client.reload()
    except RouterFailure as failure:
        fail(str(failure))
    if as_json:
        print_json(plain_data(report))
    else:
        for line in lines(report, before):
            plain(line)
    raise typer.Exit(1 if report.result == RELOAD_RESULT_REFUSED else 0)
