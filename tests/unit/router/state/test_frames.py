"""Frames between workers and their coordinator, in whatever pieces they come."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lexora_router.state.frames import MAX_FRAME_BYTES, BadFrame, Exchange, Leave, Reader, Refused, ToStore, packed

FRAMES = st.one_of(
    st.builds(
        Exchange,
        st.text(max_size=20),
        st.floats(0, 60),
        st.integers(0, 2**53),
        st.booleans(),
        st.lists(st.tuples(st.text(max_size=9), st.binary(max_size=200)), max_size=4),
    ),
    st.builds(Leave, st.text(max_size=20)),
)


@given(st.lists(FRAMES, max_size=5), st.lists(st.integers(1, 40), min_size=1, max_size=20))
def test_frames_come_out_whole_and_in_order(frames: list[ToStore], sizes: list[int]) -> None:
    data, reader, found = b"".join(map(packed, frames)), Reader[ToStore](ToStore), list[ToStore]()
    for turn in range(len(data)):
        size = sizes[turn % len(sizes)]
        found += reader.feed(data[:size])
        data = data[size:]
    assert found == frames


@pytest.mark.parametrize(
    "data", [b"\x00\x10\x00\x01", b"\x00\x00\x00\x01\xc1", b"\x00\x00\x00\x02\x91\xa1", b"\x00\x00\x00\x00"]
)
def test_what_is_no_frame_is_refused(data: bytes) -> None:
    with pytest.raises(BadFrame):
        Reader[ToStore](ToStore).feed(data)
    with pytest.raises(BadFrame):
        Reader[ToStore](ToStore).feed(packed(Refused("of the other side")))
    with pytest.raises(BadFrame):
        packed(Leave("x" * MAX_FRAME_BYTES))
