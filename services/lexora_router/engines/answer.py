"""An engine's answer on its way to the client: checked where it must be, otherwise passed on as it came."""

import re
from collections.abc import Callable
from dataclasses import replace
from itertools import islice

import msgspec

from lexora_contract.answer import Head, Headers, Reply, Usage
from lexora_contract.content_coding import ContentDecoder, Undecodable, UnknownCoding
from lexora_contract.operations import operation_of
from lexora_contract.port import Sink
from lexora_router.call import Call
from lexora_router.engines.content_decoding import Decoded, coding_of, decoded
from lexora_router.engines.http1 import Body, Response, Rest
from lexora_router.engines.in_band_error import error_in, in_mid_answer
from lexora_router.engines.media_type import EVENT_STREAM, BodyKind, body_of, is_blank, media_type
from lexora_router.engines.request_fault import blames_request
from lexora_router.engines.sse import MAX_REASONS, Inspector
from lexora_router.errors import UpstreamBroken, UpstreamFailure, UpstreamInvalid, UpstreamRefused
from lexora_router.payload.event_stream import comments_in
from lexora_router.payload.lenient_json import is_json, lenient
from lexora_router.payload.usage import UsageJson

JSON = "application/json"

# How long the end of a stream may lag behind its [DONE] before the connection is given up instead of kept.
LINGER_SECONDS = 1.0
# Comments that precede the first event are held back: they are no token, and the client waits for the engine's first word.
# What does not fit is left out.
MAX_HELD_BYTES = 65536
# Hop-by-hop headers (RFC 9110, section 7.6.1), and those that the gateway sets itself.
DROPPED_HEADERS = frozenset(
    b"connection keep-alive proxy-authenticate proxy-authorization proxy-connection te trailer transfer-encoding upgrade "
    b"content-length content-type date server set-cookie x-request-id vary alt-svc x-accel-buffering".split()
)
# Other values name further headers that are the connection's own.
_PLAIN_CONNECTION = (b"close", b"keep-alive")
_FINISH_REASON = re.compile(rb'"finish_reason": ?"(\w{1,64})"', re.ASCII)


class _Answer(msgspec.Struct):
    usage: UsageJson | None = None


_decode_answer = lenient(msgspec.json.Decoder(_Answer).decode)


class AnswerRelay:
    """Relays the answers of one endpoint; `name` says which in error messages, `end_mark` whether its streams need theirs."""

    def __init__(self, name: str, *, max_bytes: int, end_mark: bool, clock: Callable[[], float]) -> None:
        self.name = name
        self.max_bytes = max_bytes
        self.end_mark = end_mark
        self.clock = clock

    def to(self, call: Call, sink: Sink, *, hide_usage: bool) -> "Relay":
        """What takes the answer to one attempt. It raises UpstreamFailure for anything but a whole, valid one."""
        return Relay(self, call, sink, hide_usage=hide_usage)

    def decoder(self, response: Response) -> ContentDecoder | None:
        """What undoes the content codings. Raises UpstreamInvalid for codings that are not known."""
        try:
            return coding_of(response)
        except UnknownCoding as error:
            raise UpstreamInvalid(
                f"{self.name} answered in the content coding `{error}`, which cannot be read; it was asked for `identity`."
            ) from None

    def undecodable(self, error: Undecodable) -> UpstreamInvalid:
        """What bytes are that are not of their coding."""
        return UpstreamInvalid(f"{self.name} sent an answer that {error} (its content coding).")

    def too_large(self) -> UpstreamInvalid:
        """What an answer is that is larger than allowed."""
        return UpstreamInvalid(f"{self.name} answered more than {self.max_bytes} bytes.", too_large=True)


class Relay:
    """One answer on its way from the engine to the sink."""

    __slots__ = ("_hide_usage", "call", "engine", "sink")

    def __init__(self, engine: AnswerRelay, call: Call, sink: Sink, *, hide_usage: bool) -> None:
        self.engine = engine
        self.call = call
        self.sink = sink
        self._hide_usage = hide_usage

    def begin(self, response: Response) -> Body:
        """What takes the body, by its head."""
        call, content_type = self.call, response.content_type
        if response.status >= 300:
            return _Refusal(self.engine, response)
        media, headers = media_type(content_type), end_to_end(response)
        reads_json = media in (JSON, EVENT_STREAM) or not operation_of(call.path).form
        decoder = self.engine.decoder(response) if call.stream or reads_json else None
        if decoder is not None:
            headers = _plain(headers)
        head = Head(response.status, content_type, headers)
        body: Body
        if call.stream or media == EVENT_STREAM:
            body = _Begin(self, response, head, labelled=media == EVENT_STREAM, reads_json=reads_json)
        else:
            body = self.whole(head, reads_json=reads_json)
        return body if decoder is None else Decoded(body, decoder, self.engine.undecodable, response)

    def whole(self, head: Head, *, reads_json: bool) -> "_Whole":
        """What takes a whole answer."""
        return _Whole(self, head, reads_json=reads_json)

    def events(self, head: Head, response: Response) -> "_Events":
        """What takes an event stream."""
        call = self.call
        dialect, end_mark = operation_of(call.path).dialect, self.engine.end_mark
        inspector = Inspector(dialect, hide_usage=self._hide_usage, end_mark=end_mark, choices=call.choices)
        return _Events(self, head, inspector, response)


class _Collected:
    """A body that is collected, up to the size allowed."""

    __slots__ = ("_engine", "_first", "_rest", "_size")

    def __init__(self, engine: AnswerRelay) -> None:
        self._engine = engine
        self._first = b""  # mostly it is all there is, and is not copied
        self._rest: bytearray | None = None
        self._size = 0

    def data(self, data: bytes) -> None:
        """Some of it."""
        self._size += len(data)
        if self._size > self._engine.max_bytes:
            raise self._engine.too_large()
        if not self._first:
            self._first = data
        elif self._rest is None:
            self._rest = bytearray(data)
        else:
            self._rest += data

    def body(self) -> bytes:
        """All that came."""
        return self._first if self._rest is None else self._first + self._rest


class _Refusal(_Collected):
    """The body of an answer that is none: an error of the engine, or a redirect."""

    __slots__ = ("_response",)

    def __init__(self, engine: AnswerRelay, response: Response) -> None:
        super().__init__(engine)
        self._response = response
        if response.status < 400:
            raise UpstreamInvalid(f"{engine.name} answered with a redirect ({response.status}); check its url.")

    def end(self) -> None:
        """Raise what it means."""
        response, status = self._response, self._response.status
        body, headers = self._decoded(end_to_end(response))
        if status >= 500 and not is_json(body):
            shown = media_type(response.content_type) or "no content type"
            hint = next((value for name, value in response.headers if name == b"retry-after"), b"").decode("latin-1")
            message = f"{self._engine.name} answered {status} without a JSON error ({shown})."
            raise UpstreamInvalid(message, status, hint or None)
        blames = status >= 500 and blames_request(body)
        raise UpstreamRefused(status, response.content_type, body, headers, blames_request=blames)

    def _decoded(self, headers: Headers) -> tuple[bytes, Headers]:
        """The body without its codings; what cannot be decoded goes on as it came."""
        body = self.body()
        try:
            decoder = coding_of(self._response)
            if decoder is not None:
                return decoded(body, decoder, self._engine.max_bytes), _plain(headers)
        except (UnknownCoding, Undecodable, OverflowError):
            pass
        return body, headers


class _Whole(_Collected):
    """The body of a whole answer."""

    __slots__ = ("_call", "_head", "_reads_json", "_sink")

    def __init__(self, relay: Relay, head: Head, *, reads_json: bool) -> None:
        super().__init__(relay.engine)
        self._call = relay.call
        self._sink = relay.sink
        self._head = head
        self._reads_json = reads_json

    def data(self, data: bytes) -> None:
        """Some of it."""
        receipt = self._call.receipt
        receipt.body_bytes, receipt.heard_at = self._size + len(data), self._engine.clock()
        super().data(data)

    def end(self) -> None:
        """Check it, and hand it on."""
        body, head, engine, receipt = self.body(), self._head, self._engine, self._call.receipt
        if not body:
            raise UpstreamInvalid(f"{engine.name} answered {head.status} with an empty body.")
        if self._reads_json:
            receipt.usage = self._usage(body)
            if b'"error"' in body and (failure := error_in(body)) is not None:
                raise failure
            if b'"finish_reason":"abort"' in body:
                raise UpstreamBroken(f"{engine.name} aborted the answer.")
            if self._call.tracing is not None:
                receipt.finish_reasons = _finish_reasons(body)
        elif media_type(head.content_type) == "text/html":
            raise UpstreamInvalid(f"{engine.name} answered {head.status} with a page (text/html).")
        self._call.answers(engine.clock())
        self._sink.reply(Reply(head, body))

    def _usage(self, body: bytes) -> Usage | None:
        """Usage in the body, whose JSON is checked on the way."""
        try:
            wire = _decode_answer(body).usage
        except msgspec.ValidationError:
            wire = None  # JSON of another shape, such as a bare list
        except (msgspec.DecodeError, RecursionError):
            shown = media_type(self._head.content_type) or "no content type"
            raise UpstreamInvalid(f"{self._engine.name} answered {self._head.status} with invalid JSON ({shown}).") from None
        return wire.counted() if wire is not None else None


class _Begin:
    """The beginning of a body, as much as it takes to see what it is."""

    __slots__ = ("_blank", "_head", "_labelled", "_reads_json", "_relay", "_response", "_start")

    def __init__(self, relay: Relay, response: Response, head: Head, *, labelled: bool, reads_json: bool) -> None:
        self._relay = relay
        self._response = response
        self._head = head
        self._labelled = labelled
        self._reads_json = reads_json
        self._blank = bytearray()
        self._start = b""

    def data(self, data: bytes) -> Body | None:
        """Some of it; gives what takes the body, once that is seen."""
        if not self._start and is_blank(data):
            self._blank += data
            engine = self._relay.engine
            if len(self._blank) > engine.max_bytes:
                raise engine.too_large()
            return None
        self._start += data
        kind = body_of(self._start, labelled=self._labelled)
        return None if kind is None else self._go_on(kind)

    def end(self) -> None:
        """It was all there is."""
        self._go_on(BodyKind.EVENTS if self._labelled else BodyKind.WHOLE).end()

    def _go_on(self, kind: BodyKind) -> Body:
        start, head = bytes(self._blank) + self._start, self._head
        body: Body
        if kind is BodyKind.EVENTS:
            head = head if self._labelled else replace(head, content_type=EVENT_STREAM)
            body = self._relay.events(head, self._response)
        else:
            head = replace(head, content_type=JSON) if self._labelled and start else head
            body = self._relay.whole(head, reads_json=self._reads_json)
        return (body.data(start) if start else None) or body


class _Events:
    """The events of a stream: whole ones go on as they come. Comments before the first one wait for it."""

    __slots__ = ("_began", "_call", "_engine", "_head", "_held", "_inspector", "_lingers", "_receipt", "_response", "_sink")

    def __init__(self, relay: Relay, head: Head, inspector: Inspector, response: Response) -> None:
        self._engine = relay.engine
        self._call = relay.call
        self._receipt = relay.call.receipt
        self._sink = relay.sink
        self._head = head
        self._inspector = inspector
        self._response = response
        self._began = False
        self._lingers = False
        self._held = bytearray()

    def data(self, data: bytes) -> Body | None:
        """Some of it; gives what takes the rest, once the stream has said all."""
        inspector = self._inspector
        block = inspector.feed(data)
        if self._began:
            if block:
                self._receipt.events += block.count(inspector.piece)
                self._sink.frames(block)
        else:
            self._open(data, block)
        if inspector.quiet and not self._lingers:
            return None
        return self._look(inspector)

    def end(self) -> None:
        """The body is over; raises UpstreamFailure when the stream was not."""
        inspector = self._inspector
        block = inspector.finish()
        if not self._began:
            self._open(b"", block)
        elif block:
            self._receipt.events += block.count(inspector.piece)
            self._sink.frames(block)
        self._finish()

    def _open(self, data: bytes, block: bytes) -> None:
        """The stream begins with its first event."""
        receipt, held = self._receipt, self._held
        if b"data:" in block:
            self._began = True
            self._call.answers(self._engine.clock())
            receipt.events += block.count(self._inspector.piece) - _opens(block)
            self._sink.head(self._head)
            self._sink.frames(bytes(held) + block)
            return
        receipt.comments += comments_in(data)
        if len(held) + len(block) <= MAX_HELD_BYTES:  # a comment cut in its middle would swallow the first event
            held += block

    def _look(self, inspector: Inspector) -> Body | None:
        """Something was seen in a piece, or waits for its end."""
        self._receipt.usage = inspector.usage
        if inspector.done or inspector.failure is not None:
            self._finish()
            self._response.ends_within(LINGER_SECONDS)
            return Rest()
        lingers = inspector.lacks_line
        if lingers or self._lingers:  # silence is an end, as some engines keep the connection open
            self._response.ends_within(LINGER_SECONDS if lingers else None)
            self._lingers = lingers
        return None

    def _finish(self) -> None:
        inspector, receipt = self._inspector, self._receipt
        receipt.usage = inspector.usage
        receipt.finish_reasons = inspector.finish_reasons
        try:
            inspector.end()
        except UpstreamFailure as failure:
            raise (in_mid_answer(failure) if self._began else failure) from None
        if not self._began:
            raise UpstreamInvalid(f"{self._engine.name} answered an empty stream.")


def _opens(block: bytes) -> bool:
    """Whether a chat's stream begins with an event that names the speaker and says nothing, and so is no token."""
    first = block.partition(b"\n\n")[0]
    return b'"role":"assistant"' in first and (b'"content":""' in first or b'"content":null' in first)


def end_to_end(response: Response) -> Headers:
    """The headers that are not the connection's own, nor ours."""
    dropped = DROPPED_HEADERS
    for name, value in response.headers:
        if name == b"connection" and value not in _PLAIN_CONNECTION:
            dropped = dropped.union(option.strip() for option in value.lower().split(b","))
    return tuple(
        (name.decode("latin-1"), value.decode("latin-1"))
        for name, value in response.headers
        if name not in dropped and not name.startswith(b"access-control-")
    )


def _plain(headers: Headers) -> Headers:
    """The headers of a body without content codings."""
    return tuple(pair for pair in headers if pair[0] != "content-encoding")


def _finish_reasons(body: bytes) -> tuple[str, ...]:
    """How a whole answer's choices ended: inside a string the quotes would be escaped."""
    return tuple(found[1].decode() for found in islice(_FINISH_REASON.finditer(body), MAX_REASONS))
