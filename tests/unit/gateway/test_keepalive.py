"""The filler of silent streams, with a client's side that remembers what it got."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from tests.unit.gateway.support import HEAD, RECEIPT, until

from lexora_contract.answer import Head, Reply
from lexora_contract.operations import Dialect
from lexora_contract.port import Flow
from lexora_gateway.errors import invalid
from lexora_gateway.keepalive import COMMENT, KeptAnswer
from lexora_gateway.sse import openai_error

SECONDS = 0.02
END = b"(end)"


class Memory:
    """A ClientSide; `sent` has what was written, a head as its status."""

    def __init__(self) -> None:
        self.sent: list[bytes | int] = []
        self.flow = Flow()
        self.started = False

    def start(self, status: int, _: Any) -> None:
        self.started = True
        self.sent.append(status)

    def write(self, data: bytes) -> None:
        self.sent.append(data)

    def end(self) -> None:
        self.sent.append(END)

    def whole(self, status: int, headers: Any, body: bytes) -> None:
        self.start(status, headers)
        self.write(body)

    def got(self, *sent: bytes | int) -> Callable[[], bool]:
        return lambda: self.sent[: len(sent)] == list(sent)


@asynccontextmanager
async def answering() -> AsyncIterator[tuple[Memory, KeptAnswer]]:
    client: Any = Memory()
    answer = KeptAnswer(client, "id", Dialect.OPENAI, seconds=SECONDS)
    try:
        yield client, answer
    finally:
        answer.close()


async def test_nothing_is_written_before_the_call_is_known_to_stream() -> None:
    async with answering() as (client, answer):
        answer.accepted(RECEIPT, streams=False)
        await asyncio.sleep(3 * SECONDS)
        assert not client.sent
        answer.streams()
        await until(client.got(200, COMMENT, COMMENT))


async def test_the_engines_head_comes_too_late_and_its_frames_do_not() -> None:
    async with answering() as (client, answer):
        answer.accepted(RECEIPT, streams=True)
        await until(client.got(200, COMMENT))
        answer.head(HEAD)
        before = len(client.sent)
        answer.frames(b"x")
        answer.finish()
        assert client.sent[before:] == [b"x", END]


async def test_a_client_that_does_not_read_gets_no_filler() -> None:
    async with answering() as (client, answer):
        answer.streams()
        client.flow.pause()
        await asyncio.sleep(5 * SECONDS)
        assert not client.sent
        client.flow.resume()
        await until(client.got(200, COMMENT))


async def test_what_is_late_is_an_event() -> None:
    async with answering() as (client, answer):
        answer.streams()
        await until(client.got(200, COMMENT))
        answer.fail(invalid("late"))
        assert client.sent[-2:] == [openai_error(invalid("late")), END]
    async with answering() as (client, answer):
        answer.streams()
        await until(client.got(200, COMMENT))
        answer.reply(Reply(Head(200, "application/json"), b"{}"))
        answer.finish()
        assert b"whole answer where a stream was asked for" in client.sent[-2]  # type: ignore[operator]


async def test_a_whole_answer_in_time_is_one_and_nothing_comes_after_an_end() -> None:
    async with answering() as (client, answer):
        answer.streams()
        answer.reply(Reply(Head(200, "application/json"), b"{}"))
        answer.finish()
        await asyncio.sleep(3 * SECONDS)
        assert client.sent == [200, b"{}"]
    async with answering() as (client, answer):
        answer.streams()
        answer.head(HEAD)
        answer.finish()
        await asyncio.sleep(3 * SECONDS)
        assert client.sent == [200, END]
    async with answering() as (client, answer):
        answer.streams()
        answer.close()  # the client left
        await asyncio.sleep(3 * SECONDS)
        assert not client.sent
