"""Answers that are collected before they go on: whole ones, and refusals."""

import re
from itertools import islice

import msgspec

from lexora_contract.answer import Head, Headers, Reply, Usage
from lexora_contract.content_coding import Undecodable, UnknownCoding
from lexora_contract.port import Sink
from lexora_router.call import Call
from lexora_router.engines.answer_headers import end_to_end, without_coding
from lexora_router.engines.answer_rules import AnswerRules
from lexora_router.engines.content_decoding import coding_of, decoded
from lexora_router.engines.in_band_error import failure_of, is_error
from lexora_router.engines.media_type import media_type
from lexora_router.engines.request_fault import blames_request
from lexora_router.engines.response import Response
from lexora_router.engines.sse import MAX_REASONS
from lexora_router.errors import UpstreamBroken, UpstreamInvalid, UpstreamRefused
from lexora_router.payload.lenient_json import is_json, lenient
from lexora_router.payload.usage import UsageJson

_FINISH_REASON = re.compile(rb'"finish_reason": ?"(\w{1,64})"', re.ASCII)


class _Answer(msgspec.Struct):
    usage: UsageJson | None = None


_decode_answer = lenient(msgspec.json.Decoder(_Answer).decode)


class _Collected:
    """A body that is collected, up to the size allowed."""

    __slots__ = ("_engine", "_first", "_rest", "_size")

    def __init__(self, engine: AnswerRules) -> None:
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


class RefusedAnswer(_Collected):
    """The body of a failure: an error of the engine, or a redirect."""

    __slots__ = ("_response",)

    def __init__(self, engine: AnswerRules, response: Response) -> None:
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
                return decoded(body, decoder, self._engine.max_bytes), without_coding(headers)
        except (UnknownCoding, Undecodable, OverflowError):
            pass
        return body, headers


class WholeAnswerBody(_Collected):
    """The body of a whole answer."""

    __slots__ = ("_call", "_head", "_reads_json", "_sink")

    def __init__(self, engine: AnswerRules, call: Call, sink: Sink, head: Head, *, reads_json: bool) -> None:
        _Collected.__init__(self, engine)
        self._call = call
        self._sink = sink
        self._head = head
        self._reads_json = reads_json

    def data(self, data: bytes) -> None:
        """Some of it."""
        _Collected.data(self, data)
        receipt = self._call.receipt
        receipt.body_bytes, receipt.heard_at = self._size, self._engine.clock()

    def end(self) -> None:
        """Check it, and hand it on."""
        body, head, engine, receipt = self.body(), self._head, self._engine, self._call.receipt
        if not body:
            raise UpstreamInvalid(f"{engine.name} answered {head.status} with an empty body.")
        if self._reads_json:
            receipt.usage = self._usage(body)
            if b'"error"' in body and is_error(body):
                raise failure_of(body)
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


def _finish_reasons(body: bytes) -> tuple[str, ...]:
    """How a whole answer's choices ended: inside a string the quotes would be escaped."""
    return tuple(found[1].decode() for found in islice(_FINISH_REASON.finditer(body), MAX_REASONS))
