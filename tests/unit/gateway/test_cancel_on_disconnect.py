import asyncio
from typing import Any

import pytest

from lexora_gateway.cancel_on_disconnect import ClientGone, until_gone


class Connection:
    def __init__(self) -> None:
        self.gone = asyncio.Event()

    async def receive(self) -> dict[str, Any]:
        await self.gone.wait()
        return {"type": "http.disconnect"}


async def left_over() -> int:
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    return len(asyncio.all_tasks()) - 1


async def test_the_result_comes_back_and_nothing_is_left() -> None:
    async def work() -> int:
        await asyncio.sleep(0)
        return 7

    assert await until_gone(Connection().receive, work()) == 7
    assert await left_over() == 0


async def test_an_error_comes_back_and_nothing_is_left() -> None:
    async def work() -> None:
        await asyncio.sleep(0)
        raise KeyError

    with pytest.raises(KeyError):
        await until_gone(Connection().receive, work())
    assert await left_over() == 0


async def test_a_disconnect_cancels_the_work_but_not_the_caller() -> None:
    connection = Connection()
    cancelled = False

    async def work() -> None:
        nonlocal cancelled
        connection.gone.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled = True
            raise

    with pytest.raises(ClientGone):
        await until_gone(connection.receive, work())
    assert cancelled
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    assert await left_over() == 0


async def test_an_error_of_work_that_was_cancelled_is_still_a_client_gone() -> None:
    connection = Connection()

    async def work() -> None:
        connection.gone.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise KeyError from None

    with pytest.raises(ClientGone):
        await until_gone(connection.receive, work())


async def test_an_outer_cancellation_stays_one() -> None:
    cancelled = asyncio.Event()
    started = asyncio.Event()

    async def work() -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    task = asyncio.create_task(until_gone(Connection().receive, work()))
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert cancelled.is_set()
    assert await left_over() == 0
