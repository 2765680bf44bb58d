"""The name of the model in an answer: the one that the client asked for, where the engine has another for it.

Only the value changes, in place: the answer's own `model`, that of the `response` in an event of /v1/responses, and that of the
`message` in Anthropic's `message_start`. The same word anywhere else in an answer is its content.
"""

import re
from collections.abc import Callable

import msgspec

from lexora_contract.answer import Head, Reply
from lexora_contract.operations import Dialect
from lexora_contract.port import Sink
from lexora_router.payload.event_stream import events

_KEY = b'"model"'  # inside a string the quotes would be escaped
_WITHIN = {Dialect.ANTHROPIC: b"message", Dialect.RESPONSES: b"response"}
_STRING = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_VALUE = _STRING  # or an object or list of a few levels; each level reads a deeper one once more in vain
for _ in range(4):
    _VALUE = rb'%b|[{\[](?:[^{}\[\]"]++|%b)*+[}\]]' % (_STRING, _VALUE)
# 1: one of the keys, whose value is an object that begins here, or a string (2); 3 and 4: what else opens and closes. Other
# values are passed over whole; a string without an end goes to the end of the text.
_TOKEN = re.compile(
    rb'"(model|message|response)"[ \t\r\n]*+:[ \t\r\n]*+(?:(%b)|\{)|%b|%b?|([{\[])|([}\]])' % (_STRING, _VALUE, _STRING),
    re.DOTALL,
)
_OBJECT, _OPENS, _CLOSES = 1, 3, 4
_BEGINS = re.compile(rb"(?:\xef\xbb\xbf)?(?:data:)?[ \t\r\n]*+\{")  # else it is a text, such as a transcript
_DATA_LINE = re.compile(rb"(?:\A(?:\xef\xbb\xbf)?|(?<=[\r\n]))data:[^\r\n]*")

Span = tuple[int, int]


class Naming:
    """A sink whose answer names this model."""

    __slots__ = ("_name", "_sink", "head")

    def __init__(self, model: str, dialect: Dialect, sink: Sink) -> None:
        self._name = ModelName(model, dialect)
        self._sink = sink
        self.head: Callable[[Head], None] = sink.head

    def frames(self, data: bytes) -> None:
        """Whole events."""
        self._sink.frames(self._name.in_events(data))

    def reply(self, reply: Reply) -> None:
        """A whole answer."""
        self._sink.reply(Reply(reply.head, self._name.in_body(reply.body)))


class ModelName:
    """Puts one name into an answer, a whole one (`in_body`) or piece by piece (`in_events`). Make one for each answer.

    Events of a stream are mostly the same up to the name. What was found there once is replaced wherever it stands, if it
    accounts for every `"model"` in a block; only other blocks are taken apart.
    """

    __slots__ = ("_after", "_before", "_name", "_within")

    def __init__(self, name: str, dialect: Dialect) -> None:
        self._name = msgspec.json.encode(name)
        self._within = _WITHIN.get(dialect, b"")
        self._before = b""  # the beginning of the last event that had a name, up to and with it
        self._after = b""  # the same with the new name

    def in_body(self, body: bytes) -> bytes:
        """A whole answer; untouched where it names no model, and where it is no JSON object."""
        return self._spliced(body, self._places(body, [(0, len(body))])) if _KEY in body else body

    def in_events(self, block: bytes) -> bytes:
        """Whole server-sent events."""
        keys, before = block.count(_KEY), self._before
        if not keys:
            return block
        if before and block.count(before) == keys:
            return block.replace(before, self._after)
        return b"".join([self._in_event(event) if _KEY in event else event for event in events(block)])

    def _in_event(self, event: bytes) -> bytes:
        lines = [line.span() for line in _DATA_LINE.finditer(event)]
        places = self._places(event, lines)
        if places:
            start, (at, end) = lines[0][0], places[0]
            if end <= lines[0][1]:  # a later line may begin at any depth
                self._before, self._after = event[start:end], event[start:at] + self._name
        return self._spliced(event, places)

    def _spliced(self, text: bytes, places: list[Span]) -> bytes:
        pieces: list[bytes] = []
        kept = 0
        for start, end in places:
            pieces += (text[kept:start], self._name)
            kept = end
        return b"".join((*pieces, text[kept:]))

    def _places(self, text: bytes, lines: list[Span]) -> list[Span]:
        """Where the names are in a JSON text, of which these are the lines; linear, and not read beyond the last candidate."""
        found: list[Span] = []
        begins = _BEGINS.match(text, *lines[0]) if lines else None
        if begins is None:
            return found
        depth, within, last = 1, False, text.rfind(_KEY)
        for start, end in lines:
            for token in _TOKEN.finditer(text, max(start, begins.end()), end):
                kind = token.lastindex
                if kind == _OBJECT:
                    within = token[1] == self._within if depth == 1 else within
                    depth += 1
                elif kind == _OPENS:
                    depth += 1
                elif kind == _CLOSES:
                    depth -= 1
                    within = within and depth > 1
                elif kind is not None and token[1] == b"model" and (depth == 1 or (depth == 2 and within)):
                    found.append(token.span(2))
                if token.start() >= last:
                    return found
        return found
