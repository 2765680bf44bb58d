"""An engine's answer on its way to the client: checked where it must be, otherwise passed on as it came."""

from collections.abc import Callable
from dataclasses import replace

from lexora_contract.answer import Head
from lexora_contract.operations import operation_of
from lexora_contract.port import Sink
from lexora_router.call import Call
from lexora_router.engines.answer_headers import end_to_end, without_coding
from lexora_router.engines.answer_rules import AnswerRules
from lexora_router.engines.content_decoding import Decoded, has_coding
from lexora_router.engines.media_type import EVENT_STREAM, BodyKind, body_of, is_blank, media_type
from lexora_router.engines.response import Body, Response
from lexora_router.engines.sse import Inspector
from lexora_router.engines.streamed_answer import StreamedAnswer
from lexora_router.engines.whole_answer import RefusedAnswer, WholeAnswerBody

JSON = "application/json"


class AnswerRelay:
    """Relays the answers of one endpoint; see AnswerRules for the arguments."""

    def __init__(self, name: str, *, max_bytes: int, end_mark: bool, clock: Callable[[], float]) -> None:
        self._rules = AnswerRules(name, max_bytes=max_bytes, end_mark=end_mark, clock=clock)

    def to(self, call: Call, sink: Sink, *, hide_usage: bool) -> "Relay":
        """What takes the answer to one attempt. It raises UpstreamFailure for anything but a whole, valid one."""
        return Relay(self._rules, call, sink, hide_usage=hide_usage)


class Relay:
    """One answer on its way from the engine to the sink."""

    __slots__ = ("_hide_usage", "call", "engine", "sink")

    def __init__(self, engine: AnswerRules, call: Call, sink: Sink, *, hide_usage: bool) -> None:
        self.engine = engine
        self.call = call
        self.sink = sink
        self._hide_usage = hide_usage

    def begin(self, response: Response) -> Body:
        """What takes the body, by its head."""
        if response.status >= 300:
            return RefusedAnswer(self.engine, response)
        call, media, head, decoder = self.call, media_type(response.content_type), response.plain_head, None
        reads_json = media in (JSON, EVENT_STREAM) or not operation_of(call.path).form
        if head is None:
            decoder = self.engine.decoder(response) if call.stream or reads_json else None
            headers = end_to_end(response)
            if decoder is not None:
                headers = without_coding(headers)
            head = Head(response.status, response.content_type, headers)
            if not has_coding(response):
                response.plain_head = head
        body: Body
        if call.stream or media == EVENT_STREAM:
            body = _Begin(self, response, head, labelled=media == EVENT_STREAM, reads_json=reads_json)
        else:
            body = WholeAnswerBody(self.engine, call, self.sink, head, reads_json=reads_json)
        return body if decoder is None else Decoded(body, decoder, self.engine.undecodable, response)

    def whole(self, head: Head, *, reads_json: bool) -> WholeAnswerBody:
        """What takes a whole answer."""
        return WholeAnswerBody(self.engine, self.call, self.sink, head, reads_json=reads_json)

    def events(self, head: Head, response: Response) -> StreamedAnswer:
        """What takes an event stream."""
        call = self.call
        dialect, end_mark = operation_of(call.path).dialect, self.engine.end_mark
        inspector = Inspector(dialect, hide_usage=self._hide_usage, end_mark=end_mark, choices=call.choices)
        return StreamedAnswer(self.engine, call, self.sink, head, inspector=inspector, response=response)


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
