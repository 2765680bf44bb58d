import asyncio
import weakref
from random import Random

import pytest
from tests.support.clock import jumping, now

from lexora_router.timers import Callback, Expiry, Timer, Wheel, call_at, call_later


@pytest.mark.parametrize("seconds", [0.0, 0.001, 0.05, 0.1, 0.3, 1.0, 5.0, 60.0, 600.0, 86_400.0])
@jumping
async def test_a_timer_is_never_early_and_late_by_a_thirtieth_at_most(seconds: float) -> None:
    fired: list[float] = []
    start = now() + 0.123456
    await asyncio.sleep(0.123456)
    call_later(seconds, lambda: fired.append(now() - start))
    await asyncio.sleep(2 * seconds + 1)
    assert len(fired) == 1
    assert seconds <= fired[0] + 1e-9 <= seconds + max(seconds / 30, 0.01)


@jumping
async def test_an_instant_that_has_passed_is_due_at_once() -> None:
    fired: list[float] = []
    call_at(now() - 100, lambda: fired.append(now()))
    start = now()
    await asyncio.sleep(1)
    assert fired == [pytest.approx(start, abs=0.01)]


@jumping
async def test_a_timer_that_has_ended_keeps_nothing_alive() -> None:
    """What has a timer of its own is a cycle with its callback; the garbage collector runs seldom, and bodies hang on calls."""

    class Owner:
        def __init__(self, seconds: float) -> None:
            self.timer = call_later(seconds, self.due)

        def due(self) -> None:
            pass

    cancelled, fired = Owner(1), Owner(1)
    alive = [weakref.ref(cancelled), weakref.ref(fired)]
    cancelled.timer.cancel()
    await asyncio.sleep(2)
    del cancelled, fired
    assert [each() for each in alive] == [None, None]


@jumping
async def test_a_cancelled_timer_does_not_fire_and_holds_nothing() -> None:
    fired: list[int] = []
    wheel = Wheel(asyncio.get_running_loop())
    timers = [Callback(lambda number=number: fired.append(number)) for number in range(3)]  # type: ignore[misc]
    for timer in timers:
        wheel.put(timer, now() + 1)
    timers[1].cancel()
    assert sum(map(len, wheel._slots.values())) == 2
    await asyncio.sleep(2)
    timers[1].cancel()
    assert sorted(fired) == [0, 2]
    assert not wheel._slots


@jumping
async def test_timers_may_be_set_and_cancelled_by_one_that_fires() -> None:
    fired: list[str] = []
    timers: dict[str, Timer] = {}

    def first() -> None:
        fired.append("first")
        for name in ("a", "b"):
            timers[name].cancel()
        call_later(0.0, lambda: fired.append("at once"))
        call_later(5.0, lambda: fired.append("later"))

    for name in ("a", "b"):
        timers[name] = call_at(now() + 1.5, lambda name=name: fired.append(name))  # type: ignore[misc]
    call_at(now() + 1.0, first)
    await asyncio.sleep(10)
    assert fired == ["first", "at once", "later"]


@jumping
async def test_one_that_fails_costs_the_others_nothing() -> None:
    fired: list[int] = []
    failed: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: failed.append(context["exception"]))
    for number in range(3):
        call_at(2000.0, lambda number=number: fired.append(1 // number))  # type: ignore[misc]
    await asyncio.sleep(1001)
    assert sorted(fired) == [0, 1]
    assert [type(error) for error in failed] == [ZeroDivisionError]


@jumping
async def test_a_slot_that_is_gone_is_not_used_again() -> None:
    """The wheel remembers the slot of the last timer: one that was fired or given up takes no more timers."""
    fired: list[str] = []
    start = now()

    def both_due() -> None:
        call_at(start, lambda: fired.append("in the past"))

    for instant in (start + 1.0, start + 1.5):
        call_at(instant, both_due)
    call_at(start + 1.5, lambda: fired.append("cancelled")).cancel()
    await asyncio.sleep(2)
    call_at(start + 10.0, lambda: fired.append("cancelled")).cancel()
    await asyncio.sleep(2)
    call_at(start + 2.5, lambda: fired.append("later"))
    await asyncio.sleep(0.1)
    assert fired == ["in the past", "in the past", "later"]


@jumping
async def test_many_at_random_fire_in_order_and_in_time() -> None:
    random, due, fired = Random(7), {}, []
    start = now()
    for number in range(500):
        due[number] = random.choice([0.1, 1.0, 30.0]) * random.random()
        timer = call_at(start + due[number], lambda number=number: fired.append((number, now() - start)))  # type: ignore[misc]
        if number % 3 == 0:
            timer.cancel()
    await asyncio.sleep(60)
    assert sorted(number for number, _ in fired) == [number for number in range(500) if number % 3]
    assert all(due[number] <= at + 1e-9 <= due[number] * 31 / 30 + 0.01 for number, at in fired)
    assert [at for _, at in fired] == sorted(at for _, at in fired)


# -- expiry


@jumping
async def test_what_is_done_in_time_is_done() -> None:
    with Expiry(now() + 1):
        await asyncio.sleep(0.5)
    await asyncio.sleep(10)  # a timer left behind would end this


@jumping
async def test_what_takes_too_long_is_cancelled() -> None:
    start = now()
    with pytest.raises(TimeoutError), Expiry(start + 1) as limit:
        await asyncio.sleep(10)
    assert limit.expired
    assert now() - start == pytest.approx(1, rel=0.04)
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


@jumping
async def test_a_cancellation_from_outside_stays_one() -> None:
    async def sleeps() -> None:
        with Expiry(now() + 1):
            await asyncio.sleep(10)

    task = asyncio.create_task(sleeps())
    await asyncio.sleep(0.5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@jumping
async def test_both_at_once_are_a_cancellation() -> None:
    async def sleeps() -> None:
        with Expiry() as limit:
            asyncio.get_running_loop().call_later(1, limit.expire)
            await asyncio.sleep(10)

    task = asyncio.create_task(sleeps())
    asyncio.get_running_loop().call_later(1, task.cancel)
    with pytest.raises(asyncio.CancelledError):
        await task


@jumping
async def test_another_error_goes_on() -> None:
    with pytest.raises(ValueError, match="x"), Expiry(now() + 1):
        raise ValueError("x")
    await asyncio.sleep(10)
