import re
from itertools import chain, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lexora_router.errors import UpstreamInvalid
from lexora_router.payload import event_stream
from lexora_router.payload.event_stream import Splitter, comments_in, data_of, events, payloads

# Every line ends in its own way.
LINES = st.tuples(st.sampled_from([b"data: x", b": c", b"id: 7", b"", b""]), st.sampled_from([b"\n", b"\r\n", b"\r"]))
STREAMS = st.lists(LINES, max_size=12).map(lambda lines: b"".join(map(b"".join, lines)))


def cut(stream: bytes, cuts: list[int]) -> list[bytes]:
    """The stream cut at each offset (taken modulo its length)."""
    offsets = sorted({at % (len(stream) + 1) for at in cuts} | {0, len(stream)})
    return [stream[a:b] for a, b in pairwise(offsets)]


def dispatched(stream: bytes) -> list[bytes]:
    """The data that a client which reads line by line, as the standard has it, would dispatch."""
    found, data = [], b""
    for line in re.findall(rb"([^\r\n]*)(?:\r\n|\n|\r)", stream):
        if line.startswith(b"data:"):
            data += line
        elif not line and data:
            found.append(data)
            data = b""
    return found


@given(STREAMS, st.lists(st.integers(0, 100), max_size=12))
def test_whatever_the_line_ends_and_cuts_every_event_comes_out_whole(stream: bytes, cuts: list[int]) -> None:
    splitter, given_out = Splitter(), [b""]
    for piece in cut(stream, cuts):
        given_out.append(splitter.feed(piece))
    out = b"".join(given_out)
    assert stream.startswith(out)
    assert list(chain.from_iterable(map(dispatched, given_out))) == dispatched(out), "each piece is whole events"
    last = splitter.flush()
    assert dispatched(out + last)[: len(dispatched(stream))] == dispatched(stream)
    assert (out + last).startswith(stream.rstrip(b"\r\n"))
    assert not splitter.pending


@given(STREAMS)
def test_a_block_is_cut_into_its_events(stream: bytes) -> None:
    parts = events(stream)
    assert b"".join(parts) == stream
    assert list(chain.from_iterable(map(dispatched, parts))) == dispatched(stream)


@pytest.mark.parametrize("lead", [b"\n\n", b"\r\n\r\n", b":\n\n", b":\r\n\r\n"])
def test_the_shortest_events_move_no_boundary(lead: bytes) -> None:
    splitter = Splitter()
    assert splitter.feed(lead + b"data: a") == lead
    assert splitter.feed(b"\n\n") == b"data: a\n\n"
    assert not splitter.pending


@pytest.mark.parametrize("newline", [b"\n", b"\r"])
def test_an_event_does_not_wait_for_the_next_one(newline: bytes) -> None:
    assert Splitter().feed(b"data: a" + newline * 2) == b"data: a" + newline * 2


def test_an_event_longer_than_allowed_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_stream, "MAX_EVENT_BYTES", 1024)
    splitter = Splitter()
    assert splitter.feed(b"data: " + b"x" * 1000) == b""
    with pytest.raises(UpstreamInvalid, match="an event of more than"):
        splitter.feed(b"x" * 100)


@pytest.mark.parametrize(
    ("rest", "event"),
    [
        (b"data: 1", b"data: 1\n\n"),
        (b"data: 1\n", b"data: 1\n\n"),
        (b"data: 1\r\n", b"data: 1\r\n\n"),
        (b"data: 1\r", b"data: 1\r\n\n"),
        (b"\n", b""),
        (b"", b""),
    ],
)
def test_the_last_event_gets_the_empty_line_that_it_lacks(rest: bytes, event: bytes) -> None:
    splitter = Splitter()
    assert splitter.feed(rest) == b""
    assert splitter.flush() == event
    assert dispatched(event) == ([b"data: 1"] if event else [])


@pytest.mark.parametrize(
    ("event", "data"),
    [
        (b"data: x\n\n", b"x"),
        (b"data:x\r\n\r\n", b"x"),
        (b"\xef\xbb\xbfdata: x\n\n", b"x"),
        (b": note\n\n", b""),
        (b"event: e\ndata: x\ndata: y\r\r", b"x\ny"),
    ],
)
def test_the_data_of_an_event(event: bytes, data: bytes) -> None:
    assert data_of(event) == data


def test_payloads_are_what_is_neither_a_comment_nor_the_end_mark() -> None:
    assert payloads(b": a\n\ndata: 1\n\nevent: x\n\ndata: 2\r\n\r\ndata: [DONE]\n\n") == [b"1", b"2"]


def test_comments_are_counted_by_their_lines() -> None:
    assert comments_in(b": ping\n\n:\n: pong\ndata: a:b\n\n") == 3
