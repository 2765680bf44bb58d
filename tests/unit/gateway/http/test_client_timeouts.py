"""The watch over stalled connections, with a jumping clock."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast

import pytest

from lexora_gateway.http.client_timeouts import BODY_SILENCE_SECONDS, HEAD_SECONDS, WRITE_STALL_SECONDS, Patience, StallWatch

if TYPE_CHECKING:
    from collections.abc import Callable


class Timer:
    def __init__(self, due: float, callback: Callable[[], None]) -> None:
        self.due = due
        self.callback = callback
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class Loop:
    """A clock that jumps from timer to timer."""

    def __init__(self) -> None:
        self.now = 0.0
        self.timers: list[Timer] = []

    def time(self) -> float:
        return self.now

    def call_later(self, delay: float, callback: Callable[[], None]) -> Timer:
        self.timers.append(Timer(self.now + delay, callback))
        return self.timers[-1]

    @property
    def pending(self) -> list[Timer]:
        return [timer for timer in self.timers if not timer.cancelled]

    def jump(self) -> None:
        """To the next timer, of which there must be just one."""
        [timer] = self.pending
        self.timers.clear()
        self.now = timer.due
        timer.callback()


class Transport:
    def __init__(self) -> None:
        self.size = 100_000
        self.closing = False
        self.aborted = False

    def get_write_buffer_size(self) -> int:
        return self.size

    def is_closing(self) -> bool:
        return self.closing

    def abort(self) -> None:
        self.aborted = True


@pytest.fixture
def loop() -> Loop:
    return Loop()


@pytest.fixture
def transport() -> Transport:
    return Transport()


@pytest.fixture
def watch(loop: Loop, transport: Transport) -> StallWatch:
    return StallWatch(cast("asyncio.AbstractEventLoop", loop), cast("asyncio.Transport", transport), 300)


def test_the_defaults() -> None:
    assert Patience() == Patience(30, 60, 60) == Patience(HEAD_SECONDS, BODY_SILENCE_SECONDS, WRITE_STALL_SECONDS)


def test_nothing_runs_before_the_first_pause(loop: Loop, watch: StallWatch) -> None:
    watch.resume()
    watch.stop()
    assert not loop.timers


def test_a_client_that_takes_nothing_is_cut_off(loop: Loop, transport: Transport, watch: StallWatch) -> None:
    watch.start()
    while not transport.aborted:
        loop.jump()
    assert loop.now == pytest.approx(300)
    assert not loop.pending


def test_a_client_that_takes_a_little_is_not(loop: Loop, transport: Transport, watch: StallWatch) -> None:
    watch.start()
    while loop.now < 20_000:
        loop.jump()
        if loop.now % 270 == 0:
            transport.size -= 1
    assert not transport.aborted
    while not transport.aborted:
        loop.jump()
    assert 20_000 < loop.now <= 20_000 + 330 + 270


def test_a_client_that_catches_up_is_not_watched(loop: Loop, transport: Transport, watch: StallWatch) -> None:
    watch.start()
    loop.jump()
    watch.resume()
    loop.jump()
    assert not loop.pending
    watch.start()
    assert len(loop.pending) == 1


def test_pauses_one_after_another_cost_one_timer(loop: Loop, transport: Transport, watch: StallWatch) -> None:
    for _ in range(1000):
        watch.start()
        watch.resume()
    assert len(loop.timers) == 1


def test_a_buffer_of_the_same_size_by_chance_is_no_stall(loop: Loop, transport: Transport, watch: StallWatch) -> None:
    watch.start()
    for _ in range(50):
        loop.jump()
        watch.resume()
        watch.start()
    assert not transport.aborted


def test_a_closing_connection_is_watched_to_its_end(loop: Loop, transport: Transport, watch: StallWatch) -> None:
    transport.closing = True
    watch.start()
    watch.resume()
    while not transport.aborted:
        loop.jump()
    assert loop.now <= 330


def test_the_end_of_the_connection_ends_the_watch(loop: Loop, watch: StallWatch) -> None:
    watch.start()
    watch.stop()
    assert not loop.pending
