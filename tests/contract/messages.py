"""Requests and answers that the contract tests share."""

import json
from typing import Any

from lexora.v1 import call_pb2, chat_pb2, completion_pb2, options_pb2, raw_pb2, receipt_pb2, router_pb2, tokens_pb2
from tests.support.raw_server import Step, reply, stream

CHAT = "/v1/chat/completions"
ID = "call-0001"
OPTIONS = options_pb2.CallOptions(request_id=ID, user="team-a")
USAGE = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
COUNTED = tokens_pb2.Usage(input_tokens=5, output_tokens=2)
DONE = b"data: [DONE]\n\n"


def receipt(url: str, **changes: Any) -> receipt_pb2.Receipt:
    """The receipt of a call that the engine at `url` answered, without its times."""
    fields: dict[str, Any] = {"request_id": ID, "backend": "main", "endpoint": url, "model": "m", "attempts": 1}
    return receipt_pb2.Receipt(**(fields | changes))


# -- requests


def chat(**fields: Any) -> chat_pb2.ChatRequest:
    """A typed chat with one message of the user."""
    given: dict[str, Any] = {"model": "m", "messages": [chat_pb2.ChatMessage(role=chat_pb2.ROLE_USER, text="Hi")]}
    return chat_pb2.ChatRequest(**(given | fields))


def unary(**given: Any) -> router_pb2.GenerateRequest:
    """A GenerateRequest of this `chat`, `completion` or `raw`."""
    return router_pb2.GenerateRequest(call=call_pb2.Call(options=OPTIONS, **given))


def streamed(**given: Any) -> router_pb2.StreamRequest:
    """A StreamRequest of this `chat`, `completion` or `raw`."""
    return router_pb2.StreamRequest(call=call_pb2.Call(options=OPTIONS, **given))


def raw_call(body: bytes = b'{"model":"m","messages":[]}', path: str = CHAT, content_type: str = "") -> raw_pb2.RawCall:
    """A wire-faithful call."""
    return raw_pb2.RawCall(path=path, body=body, content_type=content_type)


STREAM_BODY = b'{"model":"m","messages":[],"stream":true}'
FORMS: dict[str, dict[str, Any]] = {
    "chat": {"chat": chat()},
    "completion": {"completion": completion_pb2.CompletionRequest(model="m", text="Hi")},
    "raw": {"raw": raw_call()},
}
STREAM_FORMS = FORMS | {"raw": {"raw": raw_call(STREAM_BODY)}}


# -- answers


def answer(**message: Any) -> bytes:
    """The whole answer to a chat."""
    choice = {"index": 0, "message": {"role": "assistant", "content": "Hello", **message}, "finish_reason": "stop"}
    return encoded({"id": "c1", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice], "usage": USAGE})


def encoded(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def event(value: Any) -> bytes:
    """One server-sent event."""
    return b"data: " + encoded(value) + b"\n\n"


def delta(text: str | None = None, finish: str | None = None, **more: Any) -> bytes:
    """One event of a streamed chat."""
    piece = ({} if text is None else {"content": text}) | more
    choice = {"index": 0, "delta": piece, "finish_reason": finish}
    return event({"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]})


USAGE_EVENT = event({"id": "c1", "created": 1, "model": "m", "choices": [], "usage": USAGE})
STREAM: Step = stream(delta("Hel", role="assistant"), delta("lo"), delta(finish="stop"), USAGE_EVENT, DONE)


def failing(status: str, body: bytes, headers: str = "") -> bytes:
    """An answer that is an error; `headers` are whole lines."""
    return reply(body, status=status, headers=headers)
