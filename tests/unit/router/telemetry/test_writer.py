import io
import threading
import time

import pytest

from lexora_router.access.key_format import new_key
from lexora_router.telemetry import writer as module
from lexora_router.telemetry.writer import LineWriter


class Stuck(io.StringIO):
    """A stream whose reader has stopped, until `go` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.go = threading.Event()
        self.entered = threading.Event()

    def write(self, text: str) -> int:
        self.entered.set()
        assert self.go.wait(5)
        return super().write(text)


def test_lines_come_out_in_order() -> None:
    stream = io.StringIO()
    writer = LineWriter(stream)
    for number in range(1000):
        writer.write(f"{number}\n")
    writer.close()
    assert stream.getvalue().split() == [str(number) for number in range(1000)]
    assert writer.dropped == 0


def test_a_key_comes_out_without_its_secret() -> None:
    stream, key = io.StringIO(), new_key()
    writer = LineWriter(stream)
    writer.write(f'user={key.text} detail="no model `{key.text}-32b`" other=sk-lx-short key={key.id}\n')
    writer.close()
    shown = f"sk-lx-{key.id}-***"
    assert stream.getvalue() == f'user={shown} detail="no model `{shown}-32b`" other=sk-lx-short key={key.id}\n'


def test_a_line_comes_out_without_a_close() -> None:
    stream = Stuck()
    stream.go.set()
    writer = LineWriter(stream)
    writer.write("a\n")
    assert stream.entered.wait(5)
    writer.close()


def test_a_stuck_stream_holds_nobody_and_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_LINES", 100)
    stream = Stuck()
    writer = LineWriter(stream)
    writer.write("first\n")
    assert stream.entered.wait(5)
    start = time.monotonic()
    for number in range(1000):
        writer.write(f"{number}\n")
    assert time.monotonic() - start < 1
    assert writer.dropped == 900
    stream.go.set()
    writer.close()
    assert stream.getvalue().split() == ["first", *(str(number) for number in range(900, 1000))]


@pytest.mark.parametrize("error", [BrokenPipeError(), ValueError("closed file")])
def test_a_broken_stream_costs_its_lines_only(error: Exception) -> None:
    class Broken(io.StringIO):
        def write(self, text: str) -> int:
            raise error

    writer = LineWriter(Broken())
    writer.write("a\n")
    writer.close()
    assert writer.dropped == 1
