import asyncio

import pytest

from lexora_router.workers import frames


def reader(data: bytes) -> asyncio.StreamReader:
    found = asyncio.StreamReader()
    found.feed_data(data)
    found.feed_eof()
    return found


async def test_frames_are_read_as_they_were_packed() -> None:
    stream = reader(frames.pack({"kind": "ask", "id": 7}, b"\0body") + frames.pack({"kind": "serves"}))
    assert await frames.read(stream) == ({"kind": "ask", "id": 7}, b"\0body")
    assert await frames.read(stream) == ({"kind": "serves"}, b"")
    assert await frames.read(stream) is None


@pytest.mark.parametrize("cut", [1, 5, 7, 12])
async def test_a_frame_that_ends_early_is_the_end(cut: int) -> None:
    assert await frames.read(reader(frames.pack({"kind": "x"}, b"body")[:cut])) is None


@pytest.mark.parametrize("data", [b"\xff\xff\xff\xff\0\0", b"\0\0\0\4\0\x09xxxx"])
async def test_what_is_no_frame_is_refused_before_it_is_taken_in(data: bytes) -> None:
    with pytest.raises(ValueError, match="no frame"):
        await frames.read(reader(data))
