"""POST /v1/responses, whole and streamed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from lexora_sim.api.chat import count_characters, make_choices
from lexora_sim.api.errors import bad_request
from lexora_sim.api.fields import read_fields
from lexora_sim.api.generation import Choice, Generation, Piece, new_hex
from lexora_sim.api.sampling import check_characters, check_length, read_sampling
from lexora_sim.api.structured import forced_text
from lexora_sim.api.tools import ToolCall, choose_call
from lexora_sim.text.template import chat_ids

if TYPE_CHECKING:
    from lexora_sim.api.app import App
    from lexora_sim.api.exchange import Exchange


def serve_responses(app: App, exchange: Exchange) -> None:
    """Answer one request; raises ApiError."""
    fields = read_fields(exchange.request)
    given = fields.body.get("input")
    if given is None:
        fields.missing("input")
    sampling = read_sampling(fields, app.settings, chat=True)
    sampling.max_tokens, sampling.n = fields.integer("max_output_tokens"), 1
    fields.check()
    if sampling.max_tokens is not None and sampling.max_tokens < 1:
        raise bad_request(f"max_output_tokens must be at least 1, got {sampling.max_tokens}.", "max_output_tokens")
    model = app.model_of(fields, pooling=False)
    messages = _messages(given, fields.body.get("instructions"))
    tools = fields.items("tools")
    check_characters(count_characters(messages), app.settings)
    prompt = chat_ids(messages, tools=tools)
    check_length(len(prompt), app.settings)
    call = choose_call(tools, fields.body.get("tool_choice"), messages, prompt, sampling.seed)
    text = call.arguments if call else forced_text(_forcing(fields.body, messages), prompt, sampling.seed)
    choices = make_choices(prompt, text, sampling, app.settings, app.settings.default_tokens)
    app.accept(exchange, fields, model, sampling.priority)
    face = ResponsesFace(fields.body, model, choices[0], call, partial(app.responses.keep, fields.body))
    Generation(app.scheduler, exchange, model, sampling=sampling, choices=choices, face=face).start()


def _messages(given: Any, instructions: Any) -> list[Any]:
    messages: list[Any] = [{"role": "system", "content": instructions}] if isinstance(instructions, str) else []
    if isinstance(given, str):
        return [*messages, {"role": "user", "content": given}]
    if not isinstance(given, list) or not all(isinstance(item, dict) for item in given):
        raise bad_request("input must be a string or a list of items.", "input")
    return messages + given


def _forcing(body: dict[str, Any], messages: list[Any]) -> dict[str, Any]:
    """What forces the text, in the words of a chat: `text.format` has the schema that a chat has in `response_format`."""
    text = body.get("text")
    form = text.get("format") if isinstance(text, dict) else None
    return {"structured_outputs": body.get("structured_outputs"), "response_format": form, "messages": messages}


class ResponsesFace:
    """One response object and the events that build it."""

    def __init__(
        self,
        body: dict[str, Any],
        model: str,
        choice: Choice,
        call: ToolCall | None,
        keep: Callable[[dict[str, Any], int], None],
    ) -> None:
        self._keep = keep
        self._body = body
        self._model = model
        self._choice = choice
        self._call = call
        self._identity = f"resp_{new_hex()}"
        self._item = f"{'fc' if call else 'msg'}_{new_hex()}"
        self._call_id = f"call_{new_hex()}"
        self._created = int(time.time())
        self._number = -1
        self._text: list[str] = []

    def opening(self) -> Iterable[bytes]:
        """Announce the response and its first item."""
        for name in ("response.created", "response.in_progress"):
            yield self._event(name, {"response": self._response("in_progress")})
        item = self._output("in_progress", None)
        yield self._event("response.output_item.added", {"item": item, "output_index": 0})
        if self._call is None:
            part: dict[str, Any] = {"annotations": [], "text": "", "type": "output_text", "logprobs": []}
            yield self._event("response.content_part.added", self._place({"part": part}))

    def delta(self, choice: Choice, piece: Piece) -> Iterable[bytes]:
        """Say the text of a step."""
        self._text.append(piece.text)
        if not piece.text:
            return
        if self._call is None:
            yield self._event("response.output_text.delta", self._place({"delta": piece.text, "logprobs": []}))
        else:
            where = {"delta": piece.text, "item_id": self._item, "output_index": 0}
            yield self._event("response.function_call_arguments.delta", where)

    def closing(self) -> Iterable[bytes]:
        """Close the item and give the whole response."""
        text = "".join(self._text)
        if self._call is None:
            yield self._event("response.output_text.done", self._place({"logprobs": [], "text": text}))
            part: dict[str, Any] = {"annotations": [], "text": text, "type": "output_text", "logprobs": None}
            yield self._event("response.content_part.done", self._place({"part": part}))
        else:
            where = {"arguments": text, "item_id": self._item, "name": self._call.name, "output_index": 0}
            yield self._event("response.function_call_arguments.done", where)
        item = self._output("completed", text)
        yield self._event("response.output_item.done", {"item": item, "output_index": 0})
        response = self._response(None, text)
        self._keep(response, self._number + 1)
        yield self._event("response.completed", {"response": response})

    def failure(self) -> Iterable[bytes]:
        """Say that the engine died."""
        yield self._event("error", {"code": "500", "message": "EngineCore encountered an issue.", "param": None})

    def whole(self) -> dict[str, Any]:
        """Return the unary answer."""
        response = self._response(None, self._choice.text)
        self._keep(response, 0)
        return response

    def _place(self, more: dict[str, Any]) -> dict[str, Any]:
        return {"content_index": 0, "item_id": self._item, "output_index": 0, **more}

    def _event(self, name: str, fields: dict[str, Any]) -> bytes:
        """Return one event, its fields in alphabetical order as vLLM's are."""
        self._number += 1
        values = dict(sorted({**fields, "sequence_number": self._number, "type": name}.items()))
        return b"event: %b\ndata: %b\n\n" % (name.encode(), msgspec.json.encode(values))

    def _output(self, status: str, text: str | None) -> dict[str, Any]:
        if self._call is not None:
            return {
                "arguments": text or "",
                "call_id": self._call_id,
                "name": self._call.name,
                "type": "function_call",
                "id": self._item,
                "status": status,
            }
        part: dict[str, Any] = {"annotations": [], "text": text, "type": "output_text", "logprobs": None}
        return {
            "id": self._item,
            "content": [] if text is None else [part],
            "role": "assistant",
            "status": status,
            "type": "message",
            "phase": None,
        }

    def _response(self, status: str | None, text: str | None = None) -> dict[str, Any]:
        body, choice = self._body, self._choice
        cut = status is None and choice.finish == "length"
        done = {"length": "incomplete", "abort": "cancelled"}.get(choice.finish or "", "completed")
        return {
            "id": self._identity,
            "created_at": self._created,
            "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
            "instructions": body.get("instructions"),
            "metadata": body.get("metadata"),
            "model": self._model,
            "object": "response",
            "output": [] if status else [self._output("completed", text)],
            "parallel_tool_calls": body.get("parallel_tool_calls", True),
            "temperature": float(body.get("temperature") or 1.0),
            "tool_choice": body.get("tool_choice") or ("auto" if body.get("tools") else "none"),
            "tools": body.get("tools") or [],
            "top_p": float(body.get("top_p") or 1.0),
            "background": False,
            "max_output_tokens": choice.max_tokens,
            "max_tool_calls": None,
            "previous_response_id": None,
            "prompt": None,
            "reasoning": body.get("reasoning"),
            "service_tier": "auto",
            "status": status or done,
            "text": body.get("text"),
            "top_logprobs": None,
            "truncation": "disabled",
            "usage": None if status else _usage(choice),
            "user": body.get("user"),
            "presence_penalty": 0.0,
            "frequency_penalty": 0.0,
            "kv_transfer_params": None,
            "ec_transfer_params": None,
            "input_messages": None,
            "output_messages": None,
        }


def _usage(choice: Choice) -> dict[str, Any]:
    before, after = len(choice.prompt), len(choice.ids)
    cached = choice.sequence.cached if choice.sequence else 0
    return {
        "input_tokens": before,
        "input_tokens_details": {
            "cached_tokens": cached,
            "cache_write_tokens": 0,
            "input_tokens_per_turn": [],
            "cached_tokens_per_turn": [],
        },
        "output_tokens": after,
        "output_tokens_details": {
            "reasoning_tokens": 0,
            "tool_output_tokens": 0,
            "output_tokens_per_turn": [],
            "tool_output_tokens_per_turn": [],
        },
        "total_tokens": before + after,
    }
