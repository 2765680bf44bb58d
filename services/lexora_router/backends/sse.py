"""Server-sent events: cut a byte stream into whole events and look into the few that matter.

Protocol: https://html.spec.whatwg.org/multipage/server-sent-events.html (an empty line ends an event).
"""

import msgspec

from lexora_contract.operations import Dialect
from lexora_router.errors import UpstreamBroken, UpstreamFailure, UpstreamInvalid, UpstreamRefused
from lexora_router.handler import Usage
from lexora_router.usage import UsageJson, merge_usage

MAX_EVENT_BYTES = 16 * 1024 * 1024
# What an engine says of the ends of its answers is for people to read.
MAX_REASONS = 16
MAX_REASON_CHARS = 64


class Splitter:
    """Holds back the unfinished end of the stream, so that only whole events go on."""

    __slots__ = ("_rest",)

    def __init__(self) -> None:
        self._rest = b""

    @property
    def pending(self) -> bool:
        """Whether part of an event waits for its end."""
        return bool(self._rest.strip())

    def feed(self, data: bytes) -> bytes:
        """All events that are complete now, as one piece; raises UpstreamInvalid beyond MAX_EVENT_BYTES."""
        if not self._rest and data.endswith(b"\n\n"):
            return data
        data = self._rest + data
        end = max(_end_of_last(data, b"\n\n"), _end_of_last(data, b"\r\n\r\n"), _end_of_last(data, b"\r\r"))
        self._rest = data[end:]
        if len(self._rest) > MAX_EVENT_BYTES:
            raise UpstreamInvalid(f"The engine sent an event of more than {MAX_EVENT_BYTES >> 20} MiB.")
        return data[:end]


def _end_of_last(data: bytes, mark: bytes) -> int:
    """Offset behind the last `mark`, 0 when there is none."""
    at = data.rfind(mark)
    return at + len(mark) if at >= 0 else 0


class _Choice(msgspec.Struct):
    finish_reason: str | None = None


class _Delta(msgspec.Struct):
    stop_reason: str | None = None


class _Nested(msgspec.Struct):
    status: str | None = None
    usage: UsageJson | None = None


class _Payload(msgspec.Struct):
    type: str | None = None
    choices: list[_Choice] | None = None
    usage: UsageJson | None = None
    error: msgspec.Raw = msgspec.Raw()  # empty when absent: a union with None would refuse every value
    response: _Nested | None = None
    message: msgspec.Raw = msgspec.Raw()
    delta: msgspec.Raw = msgspec.Raw()


class _ErrorBody(msgspec.Struct):
    message: str | None = None
    code: int | str | None = None


_decode_payload = msgspec.json.Decoder(_Payload).decode
_decode_delta = msgspec.json.Decoder(_Delta).decode
_decode_nested = msgspec.json.Decoder(_Nested).decode
_decode_error = msgspec.json.Decoder(_ErrorBody).decode


class Inspector:
    """Follows one stream: `feed` gives what the client may see; `usage`, `done` and `failure` say how it stands.

    `piece` is what every event with a piece of the answer has in it once.
    """

    def __init__(self, dialect: Dialect, *, hide_usage: bool) -> None:
        self._dialect = dialect
        self._hide_usage = hide_usage
        self._splitter = Splitter()
        self._looks = _LOOKS[dialect]
        self.piece = _PIECES[dialect]
        self.usage: Usage | None = None
        self.finish_reasons: tuple[str, ...] = ()  # in the order of their arrival
        self.done = False
        self.failure: UpstreamFailure | None = None

    def feed(self, data: bytes) -> bytes:
        """Events to forward. After a failure only what came before it is given, and nothing more."""
        block = self._splitter.feed(data)
        for mark in self._looks:
            if mark in block:
                return self._look_closely(block)
        return block

    def end(self) -> None:
        """The upstream has closed; raises UpstreamBroken when that is not how a whole stream ends."""
        if self.failure is not None:
            raise self.failure
        unfinished = not self.done and self._dialect is not Dialect.OTHER
        if unfinished or self._splitter.pending:
            raise UpstreamBroken("The engine ended the stream in mid-answer.")

    def _look_closely(self, block: bytes) -> bytes:
        kept = []
        for event in _events(block):
            keep = self._see(event)
            if self.failure is not None:
                break
            if keep:
                kept.append(event)
        return b"".join(kept)

    def _see(self, event: bytes) -> bool:
        """Take note of one event; False hides it from the client."""
        payload = _data_of(event)
        if not payload:
            return True
        if payload == b"[DONE]":
            self.done = True
            return True
        try:
            seen = _decode_payload(payload)
        except msgspec.ValidationError:
            return True  # an event of another shape is not ours to judge
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            self.failure = UpstreamInvalid("The engine sent an event that is not JSON.")
            return False
        if (error := bytes(seen.error)) not in (b"", b"null"):
            self.failure = _failure(payload, error)
            return False
        return self._note(seen)

    def _note(self, seen: _Payload) -> bool:
        if self._dialect is Dialect.OPENAI:
            for choice in seen.choices or ():
                if choice.finish_reason == "abort":
                    self.failure = UpstreamBroken("The engine aborted the answer.")
                    return False
                if choice.finish_reason and len(self.finish_reasons) < MAX_REASONS:
                    self.finish_reasons += (choice.finish_reason[:MAX_REASON_CHARS],)
            if seen.usage is not None:
                self.usage = merge_usage(self.usage, seen.usage.counted())
                return bool(seen.choices) or not self._hide_usage
            return True
        if seen.type in _TERMINAL:
            self.done = True
        nested = seen.response
        if seen.type == "message_start":
            nested = _nested(seen.message)
        if _aborted(seen, nested):
            self.failure = UpstreamBroken("The engine aborted the answer.")
            return False
        for usage in (seen.usage, nested.usage if nested else None):
            if usage is not None:
                self.usage = merge_usage(self.usage, usage.counted())
        return True


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

# These frame an answer in further events, which are no tokens. Inside a string the quotes would be escaped.
_PIECES: dict[Dialect, bytes] = {
    Dialect.OPENAI: b"data:",
    Dialect.RESPONSES: b'.delta"',
    Dialect.ANTHROPIC: b'"content_block_delta"',
    Dialect.OTHER: b"data:",
}


def _events(block: bytes) -> list[bytes]:
    """The block cut after each empty line; joined again they are the block."""
    if b"\r" not in block:
        parts = block.split(b"\n\n")
        return [part + b"\n\n" for part in parts[:-1]] + ([parts[-1]] if parts[-1] else [])
    events: list[bytes] = []
    lines: list[bytes] = []
    for line in block.splitlines(keepends=True):
        lines.append(line)
        if not line.strip(b"\r\n"):
            events.append(b"".join(lines))
            lines = []
    if lines:
        events.append(b"".join(lines))
    return events


def _data_of(event: bytes) -> bytes:
    """The event's data, its lines joined; empty for comments."""
    data = [line[5:].strip() for line in event.splitlines() if line.startswith(b"data:")]
    return data[0] if len(data) == 1 else b"\n".join(data)


def _aborted(seen: _Payload, nested: _Nested | None) -> bool:
    """Whether an event of the other dialects tells of an abort in the guise of an end."""
    if seen.type == "response.completed":
        return nested is not None and nested.status == "cancelled"
    if seen.type != "message_delta":
        return False
    try:
        return _decode_delta(seen.delta).stop_reason == "abort"
    except msgspec.DecodeError:
        return False


def _nested(raw: msgspec.Raw) -> _Nested | None:
    """The usage inside a message; None when it has another shape."""
    try:
        return _decode_nested(raw)
    except msgspec.DecodeError:
        return None


def _failure(payload: bytes, error: bytes) -> UpstreamFailure:
    """The engine's own error event: a refusal when it names a 4xx, else a broken answer."""
    try:
        body = _decode_error(error)
    except (msgspec.DecodeError, UnicodeDecodeError):
        body = _ErrorBody()
    if isinstance(body.code, int) and 400 <= body.code < 500:
        return UpstreamRefused(body.code, "application/json", payload)
    return UpstreamBroken(body.message or "The engine reported an error in mid-answer.", payload)
