"""Streams of events: whole ones go on, and the few that matter are looked into."""

import msgspec

from lexora_contract.answer import Usage
from lexora_contract.operations import Dialect
from lexora_router.engines.in_band_error import ERROR, failure_of
from lexora_router.errors import UpstreamBroken, UpstreamFailure, UpstreamInvalid
from lexora_router.payload.event_stream import DONE, Splitter, data_of, events
from lexora_router.payload.lenient_json import is_json, lenient
from lexora_router.payload.usage import UsageJson, merge_usage

# What an engine says of the ends of its answers is for people to read.
MAX_REASONS = 16
MAX_REASON_CHARS = 64


class _Choice(msgspec.Struct):
    finish_reason: str | None = None


class _Delta(msgspec.Struct):
    stop_reason: str | None = None


class _Nested(msgspec.Struct):
    status: str | None = None
    usage: UsageJson | None = None


class _Payload(msgspec.Struct):
    type: str | None = None
    object: str | None = None
    choices: list[_Choice] | None = None
    usage: UsageJson | None = None
    error: msgspec.Raw = msgspec.Raw()  # empty when absent: a union with None would refuse every value
    response: _Nested | None = None
    message: msgspec.Raw = msgspec.Raw()
    delta: msgspec.Raw = msgspec.Raw()


_decode_payload = lenient(msgspec.json.Decoder(_Payload).decode)
_decode_delta = msgspec.json.Decoder(_Delta).decode
_decode_nested = msgspec.json.Decoder(_Nested).decode
_decode_fields = lenient(msgspec.json.Decoder(dict[str, msgspec.Raw]).decode)


class Inspector:
    """Follows one stream: `feed` gives what the client may see; `usage`, `done` and `failure` say how it stands.

    `piece` is what every event with a piece of the answer has in it once. `end_mark`: whether only the mark of the dialect
    ends a stream; without it, one that has said all that it had to say may end without. `choices`: answers in one stream.
    `quiet`: the last piece changed nothing of how it stands, and is whole.
    """

    def __init__(self, dialect: Dialect, *, hide_usage: bool, end_mark: bool = True, choices: int = 1) -> None:
        self._dialect = dialect
        self._hide_usage = hide_usage
        self._end_mark = end_mark
        self._choices = min(choices, MAX_REASONS)
        self._splitter = Splitter()
        self._looks = _LOOKS[dialect]
        self.piece = _PIECES[dialect]
        self.usage: Usage | None = None
        self.finish_reasons: tuple[str, ...] = ()  # in the order of their arrival
        self.done = False
        self.quiet = True
        self.failure: UpstreamFailure | None = None

    @property
    def lacks_line(self) -> bool:
        """Whether all that the stream lacks is the empty line behind its end mark."""
        if not (last := self._splitter.short):
            return False
        data = data_of(last)
        return data == DONE or (b'"message_stop"' in data and is_json(data))

    def feed(self, data: bytes) -> bytes:
        """Events to forward. After a failure only what came before it is given, and nothing more."""
        block = self._splitter.feed(data)
        for mark in self._looks:
            if mark in block:
                self.quiet = False
                return self._look_closely(block)
        self.quiet = not self._splitter.holds
        return block

    def finish(self) -> bytes:
        """The body has ended in order: what the client must have yet, so that its stream ends as a whole one does."""
        block = self._look_closely(self._splitter.flush()) if _is_whole(self._splitter.pending) else b""
        if self.done or self.failure is not None or self._end_mark or self._splitter.pending or not self._said_all():
            return block
        self.done = True
        return block + _END_MARKS[self._dialect]

    def end(self) -> None:
        """The upstream has closed; raises UpstreamBroken when that is not how a whole stream ends."""
        if self.failure is not None:
            raise self.failure
        if not self.done and (self._dialect is not Dialect.OTHER or self._splitter.pending):
            raise UpstreamBroken("The engine ended the stream in mid-answer.")

    def _said_all(self) -> bool:
        """Whether every choice has its finish reason, or the usage came that follows them all."""
        ends = len(self.finish_reasons)
        return self._dialect in _END_MARKS and ends > 0 and (self.usage is not None or ends >= self._choices)

    def _look_closely(self, block: bytes) -> bytes:
        kept = []
        for event in events(block):
            shown = self._see(event)
            if self.failure is not None:
                break
            kept.append(shown)
        return b"".join(kept)

    def _see(self, event: bytes) -> bytes:
        """Take note of one event; what the client gets instead, empty when it is hidden."""
        payload = data_of(event)
        if payload in (b"", DONE):
            self.done = self.done or payload == DONE
            return event
        try:
            seen = _decode_payload(payload)
        except msgspec.ValidationError:
            return event  # an event of another shape is not ours to judge
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            self.failure = UpstreamInvalid("The engine sent an event that is not JSON.")
            return b""
        if bytes(seen.error) not in (b"", b"null") or ERROR in (seen.type, seen.object):
            self.failure = failure_of(payload)
            return b""
        if self._dialect is Dialect.OPENAI:
            return event if self._note_chunk(seen) else _without_usage(payload)
        self._note(seen)
        return event

    def _note_chunk(self, seen: _Payload) -> bool:
        """Take note of OpenAI's chunk; False when it is there for usage that the client did not ask for."""
        for choice in seen.choices or ():
            self._ended(choice.finish_reason)
        if seen.usage is None:
            return True
        self.usage = merge_usage(self.usage, seen.usage.counted())
        return bool(seen.choices) or not self._hide_usage

    def _note(self, seen: _Payload) -> None:
        if seen.type in _TERMINAL:
            self.done = True
        nested = seen.response
        if seen.type == "message_start":
            nested = _nested(seen.message)
        if seen.type == "message_delta":
            self._ended(_stop_reason(seen.delta))
        if seen.type == "response.completed" and nested is not None and nested.status == "cancelled":
            self._ended("abort")  # in the guise of an end
        for usage in (seen.usage, nested.usage if nested else None):
            if usage is not None:
                self.usage = merge_usage(self.usage, usage.counted())

    def _ended(self, reason: str | None) -> None:
        """A choice has ended, unless the reason is empty."""
        if reason == "abort":
            self.failure = UpstreamBroken("The engine aborted the answer.")
        elif reason and len(self.finish_reasons) < MAX_REASONS:
            self.finish_reasons += (reason[:MAX_REASON_CHARS],)


_TERMINAL = {"message_stop", "response.completed", "response.incomplete", "response.failed", "response.cancelled"}

# Marks that make a block worth parsing: everything else passes by unread.
_LOOKS: dict[Dialect, tuple[bytes, ...]] = {
    Dialect.OPENAI: (b'"usage"', b'"finish_reason":"', b"[DONE]", b'"error"', b'"finish_reason": "'),
    Dialect.RESPONSES: (
        b'"usage"',
        b"response.completed",
        b"response.incomplete",
        b"response.failed",
        b"response.cancelled",
        b'"error"',
    ),
    Dialect.ANTHROPIC: (b'"usage"', b"message_stop", b'"error"'),
    Dialect.OTHER: (b'"usage"', b'"error"'),
}

# What an engine may leave out behind a whole answer. The last event of Responses has the answer in it, and cannot be made up.
_END_MARKS: dict[Dialect, bytes] = {
    Dialect.OPENAI: b"data: [DONE]\n\n",
    Dialect.ANTHROPIC: b'event: message_stop\ndata: {"type":"message_stop"}\n\n',
}

# These frame an answer in further events, which are no tokens. Inside a string the quotes would be escaped.
_PIECES: dict[Dialect, bytes] = {
    Dialect.OPENAI: b"data:",
    Dialect.RESPONSES: b'.delta"',
    Dialect.ANTHROPIC: b'"content_block_delta"',
    Dialect.OTHER: b"data:",
}


def _stop_reason(delta: msgspec.Raw) -> str | None:
    """Why a message ended; None while it has not, and when the delta has another shape."""
    try:
        return _decode_delta(delta).stop_reason
    except msgspec.DecodeError:
        return None


def _nested(raw: msgspec.Raw) -> _Nested | None:
    """The usage inside a message; None when it has another shape."""
    try:
        return _decode_nested(raw)
    except msgspec.DecodeError:
        return None


def _is_whole(event: bytes) -> bool:
    """Whether an event that lacks its empty line lacks nothing else."""
    data = data_of(event)
    if not data:
        return all(line.startswith(b":") for line in event.splitlines())
    return data == DONE or is_json(data)


def _without_usage(payload: bytes) -> bytes:
    """What a chunk for usage has besides: an event with an empty piece, as clients expect one; empty when it has nothing.

    llama.cpp's server puts its `timings` there, which it would have put beside the finish reason had usage not been asked for.
    """
    try:
        fields = _decode_fields(payload)
    except (msgspec.DecodeError, UnicodeDecodeError):  # a name that is not UTF-8, which is not looked at before
        return b""
    if not any(name != "usage" and bytes(value).startswith(b"{") for name, value in fields.items()):
        return b""
    del fields["usage"]
    fields["choices"] = _NO_TEXT if bytes(fields.get("object", b"")) == b'"text_completion"' else _NO_DELTA
    return b"data: %b\n\n" % msgspec.json.encode(fields)


_NO_DELTA = msgspec.Raw(b'[{"index":0,"delta":{},"finish_reason":null}]')
_NO_TEXT = msgspec.Raw(b'[{"index":0,"text":"","finish_reason":null}]')
