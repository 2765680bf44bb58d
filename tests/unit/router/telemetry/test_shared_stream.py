import os
from concurrent.futures import ThreadPoolExecutor

from lexora_router.telemetry.shared_stream import AT_ONCE_BYTES, SharedStream, pieces


def test_lines_stay_whole_and_together() -> None:
    lines = [b"%d " % number + b"x" * (number * 37 % 900) + b"\n" for number in range(200)]
    found = pieces(b"".join(lines))
    assert b"".join(found) == b"".join(lines)
    assert all(piece.endswith(b"\n") and len(piece) <= AT_ONCE_BYTES for piece in found)
    assert len(found) < len(lines) / 3


def test_a_line_that_is_too_long_is_a_piece_of_its_own() -> None:
    long = b"y" * (3 * AT_ONCE_BYTES) + b"\n"
    assert pieces(b"a\n" + long + b"b\n") == [b"a\n", long, b"b\n"]
    assert pieces(long[:-1]) == [long[:-1]]
    assert pieces(b"") == []


def test_two_writers_do_not_mix_lines() -> None:
    reading, writing = os.pipe()
    words = ("first", "second")

    def write(word: str) -> None:
        stream = SharedStream(writing)
        for _ in range(50):
            stream.write(f"{word * 20}\n" * 90)

    with ThreadPoolExecutor() as pool, os.fdopen(reading, encoding="utf-8") as reader:
        done = [pool.submit(write, word) for word in words]
        lines = [next(reader) for _ in range(2 * 50 * 90)]
        for each in done:
            each.result()
    os.close(writing)
    assert set(lines) == {f"{word * 20}\n" for word in words}
