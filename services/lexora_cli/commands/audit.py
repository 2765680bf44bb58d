"""`lexora audit`."""

from typing import TYPE_CHECKING, Annotated

import typer

from lexora_cli.options import AsJson
from lexora_cli.reach import DEFAULT, Reach, asks_router
from lexora_cli.screen import fail, plain, print_json, show

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.text import Text

    from lexora.v1.audit_pb2 import AuditEvent

Limit = Annotated[int, typer.Option("--limit", "-n", min=1, max=1000, metavar="N", help="How many of the last ones.")]


@asks_router
def audit(router: Reach = DEFAULT, limit: Limit = 20, as_json: AsJson = False) -> None:
    """Show what was done to keys, by operators and by strangers of late.

    The oldest first. The router keeps the last 1,000 since its start; all of them go to audit.file, or into its log.

    \b
    Examples:
      lexora audit
      lexora audit --router 10.0.0.5:50051 --limit 100
      lexora audit --json
    """
    from lexora_cli.client import RouterFailure
    from lexora_contract.plain import plain as plain_data

    try:
        with router.client() as client:
            events = client.audit_events(limit)[::-1]
    except RouterFailure as failure:
        fail(str(failure))
    if as_json:
        print_json([plain_data(event) for event in events])
    elif not events:
        plain("Nothing since the start of the router.")
    else:
        show(_table(events))


def _table(events: "Sequence[AuditEvent]") -> "list[Text]":
    from lexora_cli.columns import columns

    rows = [
        (
            event.event_time.ToJsonString(),
            event.event,
            " ".join(f"{name}={value}" for name, value in sorted(event.facts.items())),
        )
        for event in events
    ]
    return columns(("time", "event", "facts"), rows)
