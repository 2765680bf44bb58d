"""The faults that need no engine: they answer, or refuse to, before the request is looked at."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lexora_sim.faults.fault import Fault

if TYPE_CHECKING:
    from lexora_sim.api.exchange import Exchange

_HTML = b"<!DOCTYPE html>\n<html><head><title>502 Bad Gateway</title></head><body><h1>502 Bad Gateway</h1></body></html>\n"
_HTML_TYPE = "text/html; charset=utf-8"
_JSON_TYPE = "application/json"


def apply_early(exchange: Exchange, fault: Fault) -> bool:
    """Do what the fault wants before any endpoint runs; False when it only matters later."""
    if fault.kind == "reset":
        exchange.kill("rst")
    elif fault.kind == "hang":
        exchange.held = True
    elif fault.kind == "status":
        _answer_status(exchange, fault)
    elif fault.kind == "html":
        exchange.respond(200, _HTML, _HTML_TYPE)
    elif fault.kind == "invalid_json":
        exchange.respond(200, b'{"id":"chatcmpl-1","choices":[{"index":0,', _JSON_TYPE)
    elif fault.kind == "empty":
        exchange.respond(200, b"", _JSON_TYPE)
    else:
        return False
    return True


def _answer_status(exchange: Exchange, fault: Fault) -> None:
    """Answer with `code` (503), `retry_after` if given, and a `body` of html, json or nothing."""
    code = fault.number("code", 503)
    wait = fault.options.get("retry_after")
    headers = [("retry-after", wait)] if wait is not None else []
    body = fault.text("body", "json")
    if body == "html":
        exchange.respond(code, _HTML, _HTML_TYPE, headers)
    elif body == "empty":
        exchange.respond(code, b"", None, headers)
    else:
        error = {"message": f"simulated status {code}", "type": "SimulatedError", "param": None, "code": code}
        exchange.respond_json(code, {"error": error}, headers)
