"""The simulator's own endpoints under /sim/: counters, remembered requests, faults."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import msgspec

from lexora_sim.api.errors import bad_request
from lexora_sim.faults.fault import BadFault

if TYPE_CHECKING:
    from lexora_sim.api.app import App
    from lexora_sim.api.exchange import Exchange


_DEFAULT_LIMIT = 100


def serve_stats(app: App, exchange: Exchange) -> None:
    """GET /sim/stats."""
    exchange.respond_json(200, app.describe())


def serve_requests(app: App, exchange: Exchange) -> None:
    """GET /sim/requests?limit=N: the last N requests (100), the newest last."""
    text = exchange.request.parameters().get("limit", "")
    limit = int(text) if text.isdecimal() else _DEFAULT_LIMIT
    records = app.stats.records
    chosen = itertools.islice(records, max(0, len(records) - limit), None)
    exchange.respond_json(200, {"requests": [record.describe() for record in chosen]})


def serve_reset(app: App, exchange: Exchange) -> None:
    """POST /sim/reset: zero counters, forget requests and prefixes; faults stay."""
    app.stats.reset()
    app.scheduler.reset()
    exchange.respond_json(200, app.describe())


def serve_add_fault(app: App, exchange: Exchange) -> None:
    """POST /sim/faults; raises ApiError."""
    try:
        rule = app.faults.add(msgspec.json.decode(exchange.request.body))
    except (msgspec.DecodeError, UnicodeDecodeError, BadFault) as error:
        raise bad_request(str(error), "fault") from None
    exchange.respond_json(200, rule.describe())
    if rule.fault.kind == "refuse":
        app.refuse(rule.fault)


def serve_list_faults(app: App, exchange: Exchange) -> None:
    """GET /sim/faults."""
    exchange.respond_json(200, {"faults": app.faults.describe()})


def serve_clear_faults(app: App, exchange: Exchange) -> None:
    """DELETE /sim/faults: also listens again at once when it refused."""
    app.faults.clear()
    app.accept_again()
    exchange.respond_json(200, {"faults": []})
