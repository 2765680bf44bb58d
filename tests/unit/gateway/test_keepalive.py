import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from tests.unit.gateway.support import HEAD, until

from lexora_contract.answer import Head, Receipt, Reply
from lexora_contract.operations import Dialect
from lexora_gateway.errors import invalid
from lexora_gateway.keepalive import COMMENT, KeptAnswer
from lexora_gateway.sse import openai_error

SECONDS = 0.02


class Client:
    """Takes what is sent as long as `reads` is set; `sent` has what it took, a head as its status."""

    def __init__(self) -> None:
        self.sent: list[bytes | int] = []
        self.waiting = 0
        self.reads = asyncio.Event()
        self.reads.set()

    async def send(self, message: Any) -> None:
        self.waiting += 1
        await self.reads.wait()
        self.waiting -= 1
        self.sent.append(message["status"] if message["type"] == "http.response.start" else message["body"])

    def took(self, *sent: bytes | int) -> Callable[[], bool]:
        return lambda: self.sent[: len(sent)] == list(sent)


@asynccontextmanager
async def answering() -> AsyncIterator[tuple[Client, KeptAnswer]]:
    client = Client()
    answer = KeptAnswer(client.send, "id", Dialect.OPENAI, seconds=SECONDS)
    try:
        yield client, answer
    finally:
        answer.close()


async def test_nothing_is_written_before_the_call_is_known_to_stream() -> None:
    async with answering() as (client, answer):
        await asyncio.sleep(3 * SECONDS)
        assert not client.sent
        answer.streams()
        await until(client.took(200, COMMENT, COMMENT))


async def test_a_piece_waits_for_the_filler_under_way() -> None:
    async with answering() as (client, answer):
        client.reads.clear()
        answer.streams()
        await until(lambda: client.waiting == 1)
        piece = asyncio.create_task(answer.piece(b"x"))
        await asyncio.sleep(0)
        client.reads.set()
        await piece
        assert client.sent == [200, COMMENT, b"x"]


async def test_a_client_that_does_not_read_gets_no_filler() -> None:
    async with answering() as (client, answer):
        answer.streams()
        client.reads.clear()
        begin = asyncio.create_task(answer.begin(HEAD, Receipt()))
        await asyncio.sleep(5 * SECONDS)
        assert client.waiting == 1
        client.reads.set()
        await begin
        await until(client.took(200, COMMENT))


async def test_a_failure_that_meets_the_filler_is_an_event() -> None:
    async with answering() as (client, answer):
        client.reads.clear()
        answer.streams()
        await until(lambda: client.waiting == 1)
        failing = asyncio.create_task(answer.fail(invalid("late")))
        await asyncio.sleep(0)
        client.reads.set()
        await failing
        assert client.sent == [200, COMMENT, openai_error(invalid("late"))]
        await asyncio.sleep(3 * SECONDS)
        assert len(client.sent) == 3


async def test_a_whole_answer_in_time_is_one() -> None:
    async with answering() as (client, answer):
        answer.streams()
        await answer.reply(Reply(Head(200, "application/json"), b"{}"), Receipt())
        await asyncio.sleep(3 * SECONDS)
        assert client.sent == [200, b"{}"]


async def test_nothing_is_written_after_the_end_or_for_a_client_that_left() -> None:
    async with answering() as (client, answer):
        answer.streams()
        await answer.begin(HEAD, Receipt())
        await answer.end()
        await asyncio.sleep(3 * SECONDS)
        assert client.sent == [200, b""]
    async with answering() as (client, answer):
        client.reads.clear()
        answer.streams()
        await until(lambda: client.waiting == 1)
        answer.close()
        client.reads.set()
        await asyncio.sleep(3 * SECONDS)
        assert not client.sent
