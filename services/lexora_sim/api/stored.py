"""What is asked of stored responses: GET, DELETE, cancel and input items."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from lexora_sim.api.errors import ApiError, bad_request

if TYPE_CHECKING:
    from lexora_sim.api.app import App
    from lexora_sim.api.exchange import Exchange
    from lexora_sim.api.response_store import Stored


def methods_of(path: str) -> dict[str, Callable[[App, Exchange], None]] | None:
    """The endpoints of a path below /v1/responses."""
    return _BELOW.get(path.split("/", 4)[4] if path.count("/") > 3 else "")


def _serve(app: App, exchange: Exchange) -> None:
    kept = _kept(app, exchange)
    query = exchange.request.parameters()
    if query.get("stream") != "true":
        exchange.respond_json(200, kept.response)
        return
    after = query.get("starting_after", "-1")
    event = {"response": kept.response, "sequence_number": kept.number, "type": "response.completed"}
    data = b"event: response.completed\ndata: %b\n\n" % msgspec.json.encode(event)
    exchange.respond(200, data if int(after) < kept.number else b"", "text/event-stream; charset=utf-8")


def _delete(app: App, exchange: Exchange) -> None:
    identity = _kept(app, exchange).response["id"]
    app.responses.remove(identity)
    exchange.respond_json(200, {"id": identity, "object": "response.deleted", "deleted": True})


def _cancel(app: App, exchange: Exchange) -> None:
    _kept(app, exchange)
    raise bad_request("Cannot cancel a synchronous response.")


def _input_items(app: App, exchange: Exchange) -> None:
    given = _kept(app, exchange).given
    items = [{"type": "message", "role": "user", "content": given}] if isinstance(given, str) else given
    exchange.respond_json(200, {"object": "list", "data": items, "has_more": False})


def _kept(app: App, exchange: Exchange) -> Stored:
    identity = exchange.request.path.split("/")[3]
    kept = app.responses.get(identity)
    if kept is None:
        message = f"Response with id '{identity}' not found."
        raise ApiError(404, {"error": {"message": message, "type": "NotFoundError", "param": "response_id", "code": 404}})
    return kept


_BELOW: dict[str, dict[str, Callable[[App, Exchange], None]]] = {
    "": {"GET": _serve, "DELETE": _delete},
    "cancel": {"POST": _cancel},
    "input_items": {"GET": _input_items},
}
