"""`lexora status`."""

import typer

from lexora_cli.options import AsJson
from lexora_cli.reach import DEFAULT, Reach, asks_router
from lexora_cli.screen import fail, out, plain, print_json, show


@asks_router
def status(router: Reach = DEFAULT, as_json: AsJson = False) -> None:
    """Show how a router and its backends are, and what it has done.

    Exit code 1 when the router does not answer or no backend does.

    \b
    Examples:
      lexora status
      lexora status --router 10.0.0.5:50051 --json
    """

    from lexora.v1.health_pb2 import BACKEND_STATUS_UNHEALTHY
    from lexora_cli.client import RouterFailure
    from lexora_cli.status_text import counters, discoveries, endpoints, headline, latencies, workers
    from lexora_contract.plain import plain as plain_data
    from lexora_contract.plain import stats_plain

    try:
        with router.client() as client:
            health, stats = client.health(), client.stats()
    except RouterFailure as failure:
        fail(str(failure))
    if as_json:
        print_json({"health": plain_data(health), "stats": stats_plain(stats)})
    else:
        out().print(headline(health))
        if several := workers(health):
            plain(several)
        show(endpoints(health))
        show(discoveries(health))
        for line in counters(stats):
            plain(line)
        if stats.since_start.total.count:
            show(latencies(stats))
    raise typer.Exit(1 if health.status == BACKEND_STATUS_UNHEALTHY else 0)
