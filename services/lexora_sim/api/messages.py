"""POST /v1/messages, the Anthropic form, whole and streamed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import msgspec

from lexora_sim.api.chat import count_characters, make_choices
from lexora_sim.api.errors import bad_request
from lexora_sim.api.fields import read_fields
from lexora_sim.api.generation import Choice, Generation, Piece, new_hex
from lexora_sim.api.sampling import check_characters, check_length, read_sampling
from lexora_sim.api.tools import ToolCall, choose_call
from lexora_sim.text.template import chat_ids

if TYPE_CHECKING:
    from lexora_sim.api.app import App
    from lexora_sim.api.exchange import Exchange


def serve_messages(app: App, exchange: Exchange) -> None:
    """Answer one request; raises ApiError."""
    fields = read_fields(exchange.request)
    messages = fields.items("messages", required=True) or []
    if fields.body.get("max_tokens") is None:
        fields.missing("max_tokens")
    tools = fields.items("tools")
    sampling = read_sampling(fields, app.settings, chat=True)
    stops = fields.items("stop_sequences") or []
    fields.check()
    sampling.n = 1
    sampling.stops = [stop for stop in stops if isinstance(stop, str) and stop]
    model = app.model_of(fields, pooling=False)
    if not messages or not all(isinstance(message, dict) for message in messages):
        raise bad_request("Cannot apply chat template to an empty conversation. Provide at least one message.")
    system = fields.body.get("system")
    conversation = [{"role": "system", "content": system}, *messages] if system else messages
    check_characters(count_characters(conversation), app.settings)
    prompt = chat_ids(conversation, tools=tools)
    check_length(len(prompt), app.settings)
    call = choose_call(tools, _tool_choice(fields.body.get("tool_choice")), messages, prompt, sampling.seed)
    text = call.arguments if call else None
    choices = make_choices(prompt, text, sampling, app.settings, app.settings.default_tokens)
    app.accept(exchange, fields, model, sampling.priority)
    face = MessagesFace(app.answer_id(exchange, "chatcmpl"), model, choices[0], call)
    Generation(app.scheduler, exchange, model, sampling=sampling, choices=choices, face=face).start()


def serve_count_tokens(app: App, exchange: Exchange) -> None:
    """Answer with the length of the prompt; raises ApiError."""
    fields = read_fields(exchange.request)
    messages = fields.items("messages", required=True) or []
    tools = fields.items("tools")
    fields.check()
    app.accept(exchange, fields, app.model_of(fields, pooling=False), 0)
    system = fields.body.get("system")
    conversation = [{"role": "system", "content": system}, *messages] if system else messages
    exchange.respond_json(200, {"input_tokens": len(chat_ids(conversation, tools=tools))})


def _tool_choice(value: Any) -> Any:
    """Read {"type": "auto" | "any" | "none" | "tool", "name"}."""
    if isinstance(value, dict) and value.get("type") != "tool":
        return value.get("type")
    return value


class MessagesFace:
    """One message with one content block, and the events that build it."""

    def __init__(self, identity: str, model: str, choice: Choice, call: ToolCall | None) -> None:
        self._identity = identity
        self._model = model
        self._choice = choice
        self._call = call

    def opening(self) -> Iterable[bytes]:
        """Start the message and its block."""
        message: dict[str, Any] = {
            "id": self._identity,
            "type": "message",
            "role": "assistant",
            "content": [],
            "model": self._model,
            "stop_reason": None,
            "stop_sequence": None,
            "usage": self._usage(0),
        }
        yield _event("message_start", {"message": message})
        yield _event("content_block_start", {"content_block": self._block(None), "index": 0})

    def delta(self, choice: Choice, piece: Piece) -> Iterable[bytes]:
        """Say the text of a step."""
        if not piece.text:
            return
        if self._call is None:
            more = {"type": "text_delta", "text": piece.text}
        else:
            more = {"type": "input_json_delta", "partial_json": piece.text}
        yield _event("content_block_delta", {"delta": more, "index": 0})

    def closing(self) -> Iterable[bytes]:
        """End block and message."""
        yield _event("content_block_stop", {"index": 0})
        delta = {"stop_reason": self._reason(), "stop_sequence": self._sequence()}
        yield _event("message_delta", {"delta": delta, "usage": self._usage(len(self._choice.ids))})
        yield _event("message_stop", {})

    def failure(self) -> Iterable[bytes]:
        """Say that the engine died."""
        error = {"type": "internal_error", "message": "EngineCore encountered an issue."}
        yield _event("error", {"error": error})

    def whole(self) -> dict[str, Any]:
        """Return the unary answer."""
        message: dict[str, Any] = {
            "id": self._identity,
            "type": "message",
            "role": "assistant",
            "content": [self._block(self._choice.text)],
            "model": self._model,
            "stop_reason": self._reason(),
        }
        if self._sequence() is not None:
            message["stop_sequence"] = self._sequence()
        return {**message, "usage": self._usage(len(self._choice.ids))}

    def _block(self, text: str | None) -> dict[str, Any]:
        if self._call is None:
            return {"type": "text", "text": text or ""}
        complete = text is not None and self._choice.finish == "stop"
        arguments = msgspec.json.decode(text) if text and complete else {}
        return {"type": "tool_use", "id": f"chatcmpl-tool-{new_hex()}", "name": self._call.name, "input": arguments}

    def _reason(self) -> str | None:
        if self._call is not None and self._choice.finish == "stop":
            return "tool_use"
        if self._sequence() is not None:
            return "stop_sequence"
        return {"stop": "end_turn", "length": "max_tokens"}.get(self._choice.finish or "", self._choice.finish)

    def _sequence(self) -> str | None:
        stop = self._choice.stop
        return stop if isinstance(stop, str) else None

    def _usage(self, output: int) -> dict[str, int]:
        return {"input_tokens": len(self._choice.prompt), "output_tokens": output}


def _event(name: str, fields: dict[str, Any]) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (name.encode(), msgspec.json.encode({"type": name, **fields}))
