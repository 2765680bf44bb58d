"""Answers that go on as they come: event streams."""

from lexora_contract.answer import Head
from lexora_contract.port import Sink
from lexora_router.call import Call
from lexora_router.engines.answer_rules import AnswerRules
from lexora_router.engines.in_band_error import in_mid_answer
from lexora_router.engines.response import Body, Response, Rest
from lexora_router.engines.sse import Inspector
from lexora_router.errors import UpstreamFailure, UpstreamInvalid
from lexora_router.payload.event_stream import comments_in

# How long the end of a stream may lag behind its [DONE] before the connection is given up instead of kept.
LINGER_SECONDS = 1.0
# Comments that precede the first event are held back: they are no token, and the client waits for the engine's first word.
# What does not fit is left out.
MAX_HELD_BYTES = 65536


class StreamedAnswer:
    """The events of a stream: whole ones go on as they come. Comments before the first one wait for it."""

    __slots__ = ("_began", "_call", "_engine", "_head", "_held", "_inspector", "_lingers", "_receipt", "_response", "_sink")

    def __init__(
        self, engine: AnswerRules, call: Call, sink: Sink, head: Head, *, inspector: Inspector, response: Response
    ) -> None:
        self._engine = engine
        self._call = call
        self._receipt = call.receipt
        self._sink = sink
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
            inspector.failure = None  # it refers to frames that refer to the inspector
            raise (in_mid_answer(failure) if self._began else failure) from None
        if not self._began:
            raise UpstreamInvalid(f"{self._engine.name} answered an empty stream.")


def _opens(block: bytes) -> bool:
    """Whether a chat's stream begins with an event that names the speaker and says nothing, and so is no token."""
    first = block.partition(b"\n\n")[0]
    return b'"role":"assistant"' in first and (b'"content":""' in first or b'"content":null' in first)
