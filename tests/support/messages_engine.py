"""An engine that speaks the Messages API as Anthropic documents it, and takes nothing that Anthropic would refuse.

https://docs.anthropic.com/en/api/messages, /messages-streaming and /errors beside it.
"""

import json
import socket
from collections.abc import Iterator
from typing import Any

from tests.support.engine import ScriptedEngine
from tests.support.raw_server import RawRequest, reply, stream

KEY = "sk-ant-engine"
USAGE = {"input_tokens": 11, "cache_creation_input_tokens": 2, "cache_read_input_tokens": 30}
# fmt: off
_FIELDS = frozenset((
    "model", "messages", "max_tokens", "system", "stream", "temperature", "top_p", "top_k", "stop_sequences", "tools",
    "tool_choice", "thinking", "metadata", "output_config", "service_tier", "cache_control", "container",
))
# fmt: on
_HEAD = "request-id: req_engine\r\nanthropic-ratelimit-requests-remaining: 99\r\n"


class MessagesEngine(ScriptedEngine):
    """`blocks` are what the next answers say, `stop_reason` why they end; `broken` takes the place of a stream's end.

    `answer` is used instead when it is set, as in ScriptedEngine.
    """

    def __init__(self, *models: str) -> None:
        super().__init__()
        entries = [
            {
                "type": "model",
                "id": model,
                "display_name": model.title(),
                "created_at": "2026-02-01T00:00:00Z",
                "max_input_tokens": 200_000,
            }
            for model in models
        ]
        listing = {"data": entries, "has_more": False, "first_id": models[0], "last_id": models[-1]}
        self._models = models
        self.pages = {"/v1/models?limit=1000": reply(json.dumps(listing).encode())}
        self.reset()

    def reset(self) -> None:
        """Answer a text again."""
        self.answer = b""
        self.blocks: list[dict[str, Any]] = [{"type": "text", "text": "Hello there."}]
        self.stop_reason = "end_turn"
        self.broken: bytes | None = None

    def _answer(self, connection: socket.socket, request: RawRequest) -> bool:
        if request.method == "GET" or self.answer:
            return super()._answer(connection, request)
        self.requests.append(request)
        connection.sendall(self._reply(request))
        return True

    def _reply(self, request: RawRequest) -> bytes:
        if request.header("x-api-key") != KEY:
            return error(401, "authentication_error", "invalid x-api-key")
        body = json.loads(request.body)
        if body.get("model") not in self._models:
            return error(404, "not_found_error", f"model: {body.get('model')}")
        if request.target == "/v1/messages/count_tokens":
            return _json({"input_tokens": 43})
        problem = next(_problems(request, body), None)
        if problem is not None:
            return error(400, "invalid_request_error", problem)
        if not body.get("stream"):
            return _json(self._message(body["model"], self.blocks, self.stop_reason, USAGE | {"output_tokens": 7}))
        events = self.events(body["model"])
        return stream(*(events if self.broken is None else [*events[:-3], self.broken]), headers=_HEAD)

    def events(self, model: str) -> list[bytes]:
        """The events of a streamed answer."""
        return list(self._events(model))

    def _events(self, model: str) -> Iterator[bytes]:
        start = self._message(model, [], None, USAGE | {"output_tokens": 1})
        yield event("message_start", message=start)
        for index, block in enumerate(self.blocks):
            empty, deltas = _in_pieces(block)
            yield event("content_block_start", index=index, content_block=empty)
            if not index:
                yield event("ping")
            for delta in deltas:
                yield event("content_block_delta", index=index, delta=delta)
            yield event("content_block_stop", index=index)
        end = {"stop_reason": self.stop_reason, "stop_sequence": None}
        yield event("message_delta", delta=end, usage={"output_tokens": 7})
        yield event("message_stop")

    def _message(self, model: str, blocks: list[Any], reason: str | None, usage: dict[str, int]) -> dict[str, Any]:
        return {
            "id": "msg_engine",
            "type": "message",
            "role": "assistant",
            "model": model,
            "content": blocks,
            "stop_reason": reason,
            "stop_sequence": None,
            "usage": usage,
        }


def event(kind: str, **fields: Any) -> bytes:
    """One server-sent event."""
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **fields})}\n\n".encode()


def error(status: int, kind: str, message: str, headers: str = "") -> bytes:
    """An error answer."""
    return reply(error_body(kind, message), status=f"{status} Error", headers=_HEAD + headers)


def error_body(kind: str, message: str) -> bytes:
    return json.dumps({"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_engine"}).encode()


def _json(body: dict[str, Any]) -> bytes:
    return reply(json.dumps(body).encode(), headers=_HEAD)


def _in_pieces(block: dict[str, Any]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """How a block begins in a stream, and the deltas that follow."""
    if block["type"] == "text":
        pieces = [{"type": "text_delta", "text": piece} for piece in _cut(block["text"])]
        return {"type": "text", "text": ""}, pieces
    if block["type"] == "thinking":
        thoughts = [{"type": "thinking_delta", "thinking": piece} for piece in _cut(block["thinking"])]
        signed = {"type": "signature_delta", "signature": block["signature"]}
        return {"type": "thinking", "thinking": "", "signature": ""}, [*thoughts, signed]
    given = _cut(json.dumps(block["input"])) if block["input"] else []
    pieces = [{"type": "input_json_delta", "partial_json": piece} for piece in ["", *given]]
    return block | {"input": {}}, pieces


def _cut(text: str) -> list[str]:
    return [text[at : at + 5] for at in range(0, len(text), 5)]


def _problems(request: RawRequest, body: dict[str, Any]) -> Iterator[str]:
    """What Anthropic would refuse, in about its words."""
    if request.target != "/v1/messages":
        yield f"{request.target}: no such path"
    if request.header("anthropic-version") != "2023-06-01":
        yield "anthropic-version: header is required"
    for name in sorted(body.keys() - _FIELDS):
        yield f"{name}: Extra inputs are not permitted"
    if not isinstance(body.get("max_tokens"), int):
        yield "max_tokens: Field required"
    if not 0 <= body.get("temperature", 1) <= 1:
        yield "temperature: range: 0..1"
    if body.get("metadata", {}).keys() - {"user_id"}:
        yield "metadata: Extra inputs are not permitted"
    waiting: set[str] = set()
    for message in body["messages"]:
        if message["role"] not in ("user", "assistant"):
            yield f'messages: Unexpected role "{message["role"]}"'
        content = message["content"]
        blocks = content if isinstance(content, list) else [{"type": "text", "text": content}]
        if not blocks:
            yield "messages: content must not be empty"
        answered = {block["tool_use_id"] for block in blocks if block["type"] == "tool_result"}
        if answered != waiting:
            yield "`tool_use` ids must have their `tool_result` blocks in the next message"
        waiting = {block["id"] for block in blocks if block["type"] == "tool_use"}
