"""An engine's answer on its way to the client: checked where it must be, otherwise passed on as it came."""

import asyncio
import contextlib
import re
from collections.abc import Callable
from itertools import islice

import msgspec

from lexora_contract.answer import Head, Headers, Receipt, Reply, Usage
from lexora_contract.content_coding import Undecodable, UnknownCoding
from lexora_contract.operations import operation_of
from lexora_router.call import Call, Emit, Frames
from lexora_router.engines.content_decoding import Read, coding_of, decoded, once
from lexora_router.engines.http1 import Response, TransportError
from lexora_router.engines.in_band_error import error_in, in_mid_answer
from lexora_router.engines.media_type import EVENT_STREAM, Body, body_of, is_blank, media_type
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
        self._name = name
        self._max_bytes = max_bytes
        self._end_mark = end_mark
        self._clock = clock

    async def relay(self, call: Call, emit: Emit, response: Response, *, hide_usage: bool) -> None:
        """Emit the answer. Raises UpstreamFailure for anything but a whole, valid one."""
        content_type = response.content_type
        if response.status >= 300:
            raise await self._refusal(response, content_type)
        media, start, kind = media_type(content_type), b"", Body.WHOLE
        read: Read = response.read
        headers = _end_to_end(response)
        reads_json = media in (JSON, EVENT_STREAM) or not operation_of(call.path).form
        if call.stream or reads_json:
            read, headers = self._decoded(response, read, headers)
        if call.stream or media == EVENT_STREAM:
            start, kind = await self._begin(read, labelled=media == EVENT_STREAM)
        if kind is Body.EVENTS:
            head = Head(response.status, content_type if media == EVENT_STREAM else EVENT_STREAM, headers)
            choices, dialect = call.choices, operation_of(call.path).dialect
            inspector = Inspector(dialect, hide_usage=hide_usage, end_mark=self._end_mark, choices=choices)
            await self._stream(call, emit, read, head, inspector, start=start)
            await _linger(response.read)
        else:
            head = Head(response.status, JSON if media == EVENT_STREAM and start else content_type, headers)
            await self._reply(call, emit, read, head, start=start, reads_json=reads_json)

    def _decoded(self, response: Response, read: Read, headers: Headers) -> tuple[Read, Headers]:
        """The body and the headers without content codings. Raises UpstreamInvalid for codings that are not known."""
        try:
            decoder = coding_of(response)
        except UnknownCoding as error:
            raise UpstreamInvalid(
                f"{self._name} answered in the content coding `{error}`, which cannot be read; it was asked for `identity`."
            ) from None
        if decoder is None:
            return read, headers
        plain = tuple(pair for pair in headers if pair[0] != "content-encoding")
        return decoded(read, decoder, self._undecodable), plain

    def _undecodable(self, error: Undecodable) -> UpstreamInvalid:
        return UpstreamInvalid(f"{self._name} sent an answer that {error} (its content coding).")

    async def _begin(self, read: Read, *, labelled: bool) -> tuple[bytes, Body]:
        """The beginning of a body, as much as it takes to see what it is."""
        blank, start = bytearray(), b""
        while data := await read():
            if not start and is_blank(data):
                blank += data
                if len(blank) > self._max_bytes:
                    raise self._too_large()
                continue
            start += data
            if kind := body_of(start, labelled=labelled):
                return bytes(blank) + start, kind
        return bytes(blank) + start, Body.EVENTS if labelled else Body.WHOLE

    async def _stream(self, call: Call, emit: Emit, read: Read, head: Head, inspector: Inspector, *, start: bytes) -> None:
        receipt, feed, piece = call.receipt, inspector.feed, inspector.piece
        data, began, held = start, False, bytearray()
        while True:
            block = feed(data) if data else inspector.finish()
            if began:
                if block:
                    receipt.events += block.count(piece)
                    await emit(Frames(block))
            elif b"data:" in block:
                began = True
                self._answered(call)
                receipt.events += block.count(piece) - _opens(block)
                await emit(head)
                await emit(Frames(bytes(held) + block))
            else:
                receipt.comments += comments_in(data)
                if len(held) + len(block) <= MAX_HELD_BYTES:  # a comment cut in its middle would swallow the first event
                    held += block
            receipt.usage = inspector.usage
            if not data or inspector.done or inspector.failure is not None:
                break
            data = await (_last(read) if inspector.lacks_line else read())
        receipt.finish_reasons = inspector.finish_reasons
        self._check_end(inspector, began=began)

    def _check_end(self, inspector: Inspector, *, began: bool) -> None:
        try:
            inspector.end()
        except UpstreamFailure as failure:
            raise (in_mid_answer(failure) if began else failure) from None
        if not began:
            raise UpstreamInvalid(f"{self._name} answered an empty stream.")

    async def _reply(self, call: Call, emit: Emit, read: Read, head: Head, *, start: bytes, reads_json: bool) -> None:
        body = await self._read(read, call.receipt, start)
        if not body:
            raise UpstreamInvalid(f"{self._name} answered {head.status} with an empty body.")
        if reads_json:
            call.receipt.usage = self._usage(body, head)
            if b'"error"' in body and (failure := error_in(body)) is not None:
                raise failure
            if b'"finish_reason":"abort"' in body:
                raise UpstreamBroken(f"{self._name} aborted the answer.")
            if call.tracing is not None:
                call.receipt.finish_reasons = _finish_reasons(body)
        elif media_type(head.content_type) == "text/html":
            raise UpstreamInvalid(f"{self._name} answered {head.status} with a page (text/html).")
        self._answered(call)
        await emit(Reply(head, body))

    def _answered(self, call: Call) -> None:
        call.receipt.first_event_at = self._clock()
        if call.lease is not None:
            call.lease.answered()

    def _usage(self, body: bytes, head: Head) -> Usage | None:
        """Usage in the body, whose JSON is checked on the way."""
        try:
            wire = _decode_answer(body).usage
        except msgspec.ValidationError:
            wire = None  # JSON of another shape, such as a bare list
        except (msgspec.DecodeError, RecursionError):
            shown = media_type(head.content_type) or "no content type"
            raise UpstreamInvalid(f"{self._name} answered {head.status} with invalid JSON ({shown}).") from None
        return wire.counted() if wire is not None else None

    async def _refusal(self, response: Response, content_type: str) -> UpstreamFailure:
        status = response.status
        if status < 400:
            return UpstreamInvalid(f"{self._name} answered with a redirect ({status}); check its url.")
        body, headers = await self._read(response.read, Receipt()), _end_to_end(response)
        with contextlib.suppress(UpstreamInvalid):  # what cannot be decoded goes on as it came, with its coding
            read, plain = self._decoded(response, once(body), headers)
            body, headers = await self._read(read, Receipt()), plain
        if status >= 500 and not is_json(body):
            shown = media_type(content_type) or "no content type"
            hint = next((value for name, value in response.headers if name == b"retry-after"), b"").decode("latin-1")
            return UpstreamInvalid(f"{self._name} answered {status} without a JSON error ({shown}).", status, hint or None)
        blames = status >= 500 and blames_request(body)
        return UpstreamRefused(status, content_type, body, headers, blames_request=blames)

    async def _read(self, read: Read, receipt: Receipt, start: bytes = b"") -> bytes:
        """The whole body, of which `start` was read before; raises UpstreamInvalid when it is larger than allowed."""
        first = data = start or await read()
        rest = bytearray()
        while data:
            receipt.body_bytes, receipt.heard_at = len(first) + len(rest), self._clock()
            if receipt.body_bytes > self._max_bytes:
                raise self._too_large()
            data = await read()
            rest += data
        return first + rest if rest else first

    def _too_large(self) -> UpstreamInvalid:
        return UpstreamInvalid(f"{self._name} answered more than {self._max_bytes} bytes.", too_large=True)


async def _last(read: Read) -> bytes:
    """What comes behind an end mark without its empty line; silence is the end, as some engines keep the connection open."""
    try:
        async with asyncio.timeout(LINGER_SECONDS):
            return await read()
    except (TimeoutError, TransportError):
        return b""  # the answer is whole, whatever becomes of its connection


async def _linger(read: Read) -> None:
    """Read to the end of the body, so that the connection can be used again."""
    try:
        async with asyncio.timeout(LINGER_SECONDS):
            while await read():
                pass
    except (TimeoutError, TransportError):
        return  # the answer is whole, whatever becomes of its connection


def _opens(block: bytes) -> bool:
    """Whether a chat's stream begins with an event that names the speaker and says nothing, and so is no token."""
    first = block.partition(b"\n\n")[0]
    return b'"role":"assistant"' in first and (b'"content":""' in first or b'"content":null' in first)


def _end_to_end(response: Response) -> Headers:
    dropped = DROPPED_HEADERS
    for name, value in response.headers:
        if name == b"connection" and value not in _PLAIN_CONNECTION:
            dropped = dropped.union(option.strip() for option in value.lower().split(b","))
    return tuple(
        (name.decode("latin-1"), value.decode("latin-1"))
        for name, value in response.headers
        if name not in dropped and not name.startswith(b"access-control-")
    )


def _finish_reasons(body: bytes) -> tuple[str, ...]:
    """How a whole answer's choices ended: inside a string the quotes would be escaped."""
    return tuple(found[1].decode() for found in islice(_FINISH_REASON.finditer(body), MAX_REASONS))
