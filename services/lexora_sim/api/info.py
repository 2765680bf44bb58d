"""What the server says about itself: health, version, load, models, metrics."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from lexora_sim.api.generation import new_hex
from lexora_sim.engine.exposition import render

if TYPE_CHECKING:
    from lexora_sim.api.app import App
    from lexora_sim.api.exchange import Exchange


def serve_health(app: App, exchange: Exchange) -> None:
    """Answer 200 with nothing, 503 once the server is stopping."""
    exchange.respond(503 if app.stopping else 200, b"", None)


def serve_version(app: App, exchange: Exchange) -> None:
    """Answer with the version it claims."""
    exchange.respond_json(200, {"version": app.settings.version})


def serve_load(app: App, exchange: Exchange) -> None:
    """Answer with the requests in the engine."""
    exchange.respond_json(200, {"server_load": app.scheduler.running + app.scheduler.waiting})


def serve_metrics(app: App, exchange: Exchange) -> None:
    """Answer in Prometheus' text format."""
    exchange.respond(200, render(app.scheduler), "text/plain; version=1.0.0; charset=utf-8")


def serve_models(app: App, exchange: Exchange) -> None:
    """List the models with their context length."""
    now = int(time.time())
    names = (*app.settings.models, *app.settings.embedding_models)
    exchange.respond_json(200, {"object": "list", "data": [_model(app, name, now) for name in names]})


def _model(app: App, name: str, now: int) -> dict[str, object]:
    permission = {
        "id": f"modelperm-{new_hex()}",
        "object": "model_permission",
        "created": now,
        "allow_create_engine": False,
        "allow_sampling": True,
        "allow_logprobs": True,
        "allow_search_indices": False,
        "allow_view": True,
        "allow_fine_tuning": False,
        "organization": "*",
        "group": None,
        "is_blocking": False,
    }
    return {
        "id": name,
        "object": "model",
        "created": now,
        "owned_by": "vllm",
        "root": name,
        "parent": None,
        "max_model_len": app.settings.max_model_len,
        "permission": [permission],
    }
