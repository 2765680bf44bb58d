"""A chat completion that the Messages API answers.

https://docs.anthropic.com/en/api/messages-streaming: a stream is message_start, then for each block of the answer its start,
deltas and stop, one after the other, then message_delta with the reason and the counts, and message_stop. Pings and events of
other kinds may stand anywhere. https://platform.openai.com/docs/api-reference/chat-streaming has the chunks that become of it.
"""

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from lexora_contract.answer import Reply, Usage
from lexora_contract.operations import MESSAGES
from lexora_router.adapters.messages_request import to_messages
from lexora_router.errors import UpstreamInvalid, UpstreamRefused
from lexora_router.payload.event_stream import data_of, events
from lexora_router.payload.lenient_json import lenient
from lexora_router.payload.usage import UsageJson, merge_usage

CHUNK = "chat.completion.chunk"
MAX_THOUGHT_BYTES = 1 << 20  # of one block that is kept to be handed back with its signature

_FINISH_REASONS = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "pause_turn": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}
_EMPTY = (b"", b'""', b"null")
_THOUGHTS = ("thinking", "redacted_thinking")


class _Delta(msgspec.Struct, gc=False):
    type: str = ""
    text: msgspec.Raw = msgspec.Raw()
    thinking: msgspec.Raw = msgspec.Raw()
    signature: msgspec.Raw = msgspec.Raw()
    partial_json: msgspec.Raw = msgspec.Raw()
    stop_reason: str | None = None
    stop_sequence: str | None = None


class _Block(msgspec.Struct, gc=False):
    type: str = ""
    text: str = ""
    thinking: str = ""
    data: str = ""
    signature: str = ""
    id: str = ""
    name: str = ""
    input: msgspec.Raw = msgspec.Raw()


class _Message(msgspec.Struct, gc=False):
    id: str = ""
    model: str = ""
    usage: msgspec.Raw = msgspec.Raw()
    content: list[msgspec.Raw] = []
    stop_reason: str | None = None
    stop_sequence: str | None = None
    type: str = ""


class _Event(msgspec.Struct, gc=False):
    type: str = ""
    message: _Message | None = None
    content_block: _Block | None = None
    delta: _Delta | None = None
    usage: msgspec.Raw = msgspec.Raw()


class _Error(msgspec.Struct, gc=False):
    type: str = "api_error"
    message: str = ""


class _Failure(msgspec.Struct, gc=False):
    error: _Error


_decode_event = lenient(msgspec.json.Decoder(_Event).decode)
_decode_message = lenient(msgspec.json.Decoder(_Message).decode)
_decode_block = msgspec.json.Decoder(_Block).decode
_decode_failure = msgspec.json.Decoder(_Failure).decode
_decode_usage = msgspec.json.Decoder(UsageJson).decode
_decode_text = msgspec.json.Decoder(str).decode
_encode = msgspec.json.Encoder().encode


class ChatByMessages:
    """One call; `include_usage` is what the client asked for of its stream."""

    path = MESSAGES

    def __init__(self, body: bytes, *, include_usage: bool) -> None:
        self._body = to_messages(body)
        self._include_usage = include_usage
        self._shape: dict[str, Any] = {}
        self._before = b""  # what stands before the delta of a chunk
        self._usage: Usage | None = None
        self._calls = 0
        self._input: bytes = b""  # of the call that has begun, as long as no piece of it came
        self._thought: _Thought | None = None

    def take_body(self) -> bytes:
        """The request of the Messages API."""
        body, self._body = self._body, b""
        return body

    def reply(self, reply: Reply) -> Reply:
        """The completion that a message is."""
        try:
            message = _decode_message(reply.body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            message = _Message()
        if message.type != "message":
            raise UpstreamInvalid("The engine's answer is no message.")
        shape = self._begin(message, "chat.completion")
        made = {**shape, "choices": [_choice(message)], "usage": _usage(_counted(message.usage) or Usage())}
        return Reply(reply.head, _encode(made))

    def feed(self, data: bytes) -> bytes:
        """The chunks that events become."""
        return b"".join([self._chunks(event) for event in events(data)])

    def refusal(self, refused: UpstreamRefused) -> UpstreamRefused:
        """The same refusal in OpenAI's words."""
        return UpstreamRefused(
            refused.http_status,
            refused.content_type,
            self.error_event(refused.body),
            refused.headers,
            blames_request=refused.blames_request,
        )

    def error_event(self, payload: bytes) -> bytes:
        """OpenAI's error object; what has another shape than Anthropic's stays as it is."""
        try:
            error = _decode_failure(payload).error
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return payload
        return _encode({"error": {"message": error.message, "type": error.type, "param": None, "code": None}})

    def _chunks(self, event: bytes) -> bytes:
        payload = data_of(event)
        if not payload:
            return event  # a comment keeps the connection alive
        try:
            seen = _decode_event(payload)
        except msgspec.ValidationError:
            return b""  # an event of another shape says nothing that is known
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise UpstreamInvalid("The engine sent an event that is not JSON.") from None
        handle = _HANDLERS.get(seen.type)
        return b"" if handle is None else handle(self, seen)

    def _start(self, seen: _Event) -> bytes:
        message = seen.message or _Message()
        self._begin(message, CHUNK)
        self._count(message.usage)
        return self._chunk(b'{"role":"assistant","content":""}')

    def _piece(self, seen: _Event) -> bytes:
        """A piece of text, of a thought or of a tool's input, whose JSON strings are taken over as they are."""
        delta = seen.delta or _NO_DELTA
        if delta.text:
            return self._chunk(b'{"content":%b}' % bytes(delta.text))
        if delta.partial_json:
            piece = bytes(delta.partial_json)
            if piece in _EMPTY:
                return b""
            self._input = b""
            return self._arguments(piece)
        if self._thought is not None:
            self._thought.add(delta)
        return self._chunk(b'{"reasoning_content":%b}' % bytes(delta.thinking)) if delta.thinking else b""

    def _open(self, seen: _Event) -> bytes:
        """A block begins; it may have a part of its content already."""
        block = seen.content_block or _Block()
        if block.type == "tool_use":
            self._calls += 1
            self._input = bytes(block.input) or b"{}"
            call = {"index": self._calls - 1, "id": block.id, "type": "function"}
            return self._chunk(_encode({"tool_calls": [{**call, "function": {"name": block.name, "arguments": ""}}]}))
        if block.type in _THOUGHTS:
            self._thought = _Thought(block)
        if block.text or block.thinking:
            name = "content" if block.text else "reasoning_content"
            return self._chunk(_encode({name: block.text or block.thinking}))
        return b""

    def _close(self, _: _Event) -> bytes:
        """A block ends: what was not said in pieces is said now."""
        given, self._input = self._input, b""
        thought, self._thought = self._thought, None
        if given:
            return self._arguments(_encode(given.decode()))
        made = thought.block() if thought is not None else None
        return self._chunk(_encode({"thinking_blocks": [made]})) if made else b""

    def _arguments(self, piece: bytes) -> bytes:
        return self._chunk(b'{"tool_calls":[{"index":%d,"function":{"arguments":%b}}]}' % (self._calls - 1, piece))

    def _begin(self, message: _Message, kind: str) -> dict[str, Any]:
        self._shape = {"id": message.id, "object": kind, "created": int(time.time()), "model": message.model}
        self._before = b'data: %b,"choices":[{"index":0,"delta":' % _encode(self._shape)[:-1]
        return self._shape

    def _chunk(self, delta: bytes) -> bytes:
        if not self._before:
            self._begin(_Message(), CHUNK)
        return self._before + delta + b',"logprobs":null,"finish_reason":null}]}\n\n'

    def _count(self, usage: msgspec.Raw) -> None:
        found = _counted(usage)
        if found is not None:
            self._usage = merge_usage(self._usage, found)

    def _ending(self, seen: _Event) -> bytes:
        """The counts so far, and why the answer ended."""
        self._count(seen.usage)
        delta = seen.delta or _NO_DELTA
        if not delta.stop_reason:
            return b""
        choice = {"index": 0, "delta": {}, "logprobs": None} | _finish(delta.stop_reason, delta.stop_sequence)
        return b"data: %b\n\n" % _encode({**self._shape, "choices": [choice]})

    def _ping(self, _: _Event) -> bytes:
        """The engine is alive, and has nothing to say yet: a comment says so here."""
        return b": ping\n\n"

    def _last(self, _: _Event) -> bytes:
        usage = b""
        if self._include_usage:
            usage = b"data: %b\n\n" % _encode({**self._shape, "choices": [], "usage": _usage(self._usage or Usage())})
        return usage + b"data: [DONE]\n\n"


_NO_DELTA = _Delta()
_HANDLERS: dict[str, Callable[[ChatByMessages, _Event], bytes]] = {
    "message_start": ChatByMessages._start,
    "content_block_start": ChatByMessages._open,
    "content_block_delta": ChatByMessages._piece,
    "content_block_stop": ChatByMessages._close,
    "message_delta": ChatByMessages._ending,
    "message_stop": ChatByMessages._last,
    "ping": ChatByMessages._ping,
}


class _Thought:
    """A block of thinking as it comes, kept whole: with tools it must be handed back with its signature."""

    def __init__(self, block: _Block) -> None:
        self._block = block
        self._thinking: list[str] = [block.thinking]
        self._signature = block.signature
        self._size = 0

    def add(self, delta: _Delta) -> None:
        """Take note of one more piece; raises UpstreamInvalid for what is no text."""
        self._size += len(delta.thinking) + len(delta.signature)
        if self._size > MAX_THOUGHT_BYTES:
            self._thinking.clear()
            self._signature = ""
            return
        try:
            if delta.thinking:
                self._thinking.append(_decode_text(delta.thinking))
            if delta.signature:
                self._signature += _decode_text(delta.signature)
        except msgspec.DecodeError:
            raise UpstreamInvalid("The engine sent a thought that is no text.") from None

    def block(self) -> dict[str, str] | None:
        """The block as the engine wants it back; None when it cannot be handed back."""
        if self._block.data:
            return {"type": self._block.type, "data": self._block.data}
        if not self._signature:
            return None
        return {"type": self._block.type, "thinking": "".join(self._thinking), "signature": self._signature}


def _blocks(content: list[msgspec.Raw]) -> Iterator[_Block]:
    """The blocks of an answer; of one that has another shape nothing is known."""
    for raw in content:
        with contextlib.suppress(msgspec.DecodeError):
            yield _decode_block(raw)


def _choice(message: _Message) -> dict[str, Any]:
    blocks = list(_blocks(message.content))
    text = "".join(block.text for block in blocks if block.type == "text")
    thinking = "".join(block.thinking for block in blocks)
    thoughts = [made for block in blocks if block.type in _THOUGHTS and (made := _Thought(block).block())]
    calls = [
        {"id": block.id, "type": "function", "function": {"name": block.name, "arguments": bytes(block.input).decode() or "{}"}}
        for block in blocks
        if block.type == "tool_use"
    ]
    said: dict[str, Any] = {"role": "assistant", "content": text if text or not calls else None}
    if thinking:
        said["reasoning_content"] = thinking
    if thoughts:
        said["thinking_blocks"] = thoughts
    if calls:
        said["tool_calls"] = calls
    return {"index": 0, "message": said, "logprobs": None} | _finish(message.stop_reason, message.stop_sequence)


def _finish(reason: str | None, sequence: str | None) -> dict[str, Any]:
    """Why it ended; `stop_reason` names the stop sequence, as vLLM does."""
    found: dict[str, Any] = {"finish_reason": _FINISH_REASONS.get(reason or "", "stop")}
    return found | {"stop_reason": sequence} if sequence else found


def _counted(usage: msgspec.Raw) -> Usage | None:
    """The counts; None where there are none, and for those of another shape."""
    try:
        return _decode_usage(usage).counted()
    except msgspec.DecodeError:
        return None


def _usage(usage: Usage) -> dict[str, Any]:
    counts: dict[str, Any] = {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
    }
    if usage.reasoning_tokens:
        counts["completion_tokens_details"] = {"reasoning_tokens": usage.reasoning_tokens}
    return counts
