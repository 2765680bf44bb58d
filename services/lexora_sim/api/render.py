"""POST /v1/chat/completions/render and /v1/completions/render: what the engine would be given, without a generation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lexora_sim.api.completions import read_prompts
from lexora_sim.api.fields import check_messages, read_fields
from lexora_sim.text.template import chat_ids

if TYPE_CHECKING:
    from lexora_sim.api.app import App
    from lexora_sim.api.exchange import Exchange

_SAMPLING = ("max_tokens", "n", "seed", "stop", "temperature", "top_p")


def serve_chat(app: App, exchange: Exchange) -> None:
    """Answer with the rendered conversation; raises ApiError."""
    fields = read_fields(exchange.request)
    messages = fields.items("messages", required=True) or []
    tools = fields.items("tools")
    fields.check()
    check_messages(messages)
    model = app.model_of(fields, pooling=False)
    app.accept(exchange, fields, model, 0)
    identity = app.answer_id(exchange, "chatcmpl")
    exchange.respond_json(200, _rendered(identity, model, chat_ids(messages, tools=tools), fields.body))


def serve_completion(app: App, exchange: Exchange) -> None:
    """Answer with each rendered prompt; raises ApiError."""
    fields = read_fields(exchange.request)
    prompts = read_prompts(fields.body.get("prompt"), app.settings)
    model = app.model_of(fields, pooling=False)
    app.accept(exchange, fields, model, 0)
    identity = app.answer_id(exchange, "cmpl")
    exchange.respond_json(200, [_rendered(f"{identity}-{index}", model, ids, fields.body) for index, ids in enumerate(prompts)])


def _rendered(identity: str, model: str, ids: list[int], body: dict[str, Any]) -> dict[str, Any]:
    parameters = {name: body[name] for name in _SAMPLING if body.get(name) is not None}
    return {"request_id": identity, "model": model, "token_ids": ids, "sampling_params": parameters, "stream": False}
