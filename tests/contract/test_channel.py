"""A real channel at its limits, and the typed stub as its users write it."""

import asyncio
from typing import Any

import grpc
import pytest

from lexora.v1 import chat_pb2, router_pb2
from lexora.v1.router_pb2_grpc import RouterServiceStub
from lexora_router.process.app import RouterApp
from tests.contract.conftest import BODY_LIMIT
from tests.contract.messages import DONE, answer, delta, raw_call, streamed, unary
from tests.support.links import MIB, Outcome, channel, settle, status_in
from tests.support.loop_engine import LoopEngine
from tests.support.raw_server import LAST_CHUNK, chunk, reply, stream_head

SEND = ("grpc.max_send_message_length", -1)
RECEIVE = ("grpc.max_receive_message_length", -1)


def body(size: int) -> bytes:
    """A valid chat of so many bytes."""
    start, end = b'{"model":"m","messages":[],"x":"', b'"}'
    return start + b"x" * (size - len(start) - len(end)) + end


async def test_the_largest_request(router: tuple[RouterApp, str], engine: LoopEngine) -> None:
    engine.answer(reply(answer()))
    async with channel(router[1], SEND) as wire:
        stub = RouterServiceStub(wire)
        await stub.Generate(unary(raw=raw_call(body(BODY_LIMIT))))
        assert engine.requests[0].body == body(BODY_LIMIT)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.Generate(unary(raw=raw_call(body(BODY_LIMIT + 1))))
        assert Outcome(status=status_in(refused.value)).reason == "REQUEST_TOO_LARGE"
        with pytest.raises(grpc.aio.AioRpcError) as dropped:
            await stub.Generate(unary(raw=raw_call(body(BODY_LIMIT + 2 * MIB))))
        assert dropped.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        await stub.Generate(unary(raw=raw_call()))  # the channel lives on
    assert len(engine.requests) == 2


async def test_an_answer_beyond_the_default_of_clients(router: tuple[RouterApp, str], engine: LoopEngine) -> None:
    text = "x" * (6 * MIB)
    engine.answer(reply(answer(content=text)))
    async with channel(router[1], RECEIVE) as wire:
        found: router_pb2.GenerateResponse = await RouterServiceStub(wire).Generate(unary(raw=raw_call()))
    assert found.raw.body == answer(content=text)


@pytest.mark.parametrize("backend", [{"max_concurrency": 200}])
async def test_200_streams_on_one_channel(router: tuple[RouterApp, str], engine: LoopEngine) -> None:
    app, address = router
    count = 200
    gate = asyncio.Event()
    engine.answer(stream_head(), chunk(delta("a")), gate, chunk(delta("b") + delta(finish="stop") + DONE), LAST_CHUNK)

    async def read(stub: RouterServiceStub) -> str:
        call: Any = stub.Stream(streamed(chat=chat_pb2.ChatRequest(model="m", messages=[USER])))
        return "".join([message.delta.chat.choices[0].text async for message in call if message.HasField("delta")])

    async with channel(address) as wire:
        stub = RouterServiceStub(wire)
        tasks = [asyncio.create_task(read(stub)) for _ in range(count)]
        await engine.wait_requests(count)
        await settle(lambda: app.active == count)
        gate.set()
        assert await asyncio.gather(*tasks) == ["ab"] * count
    await settle(lambda: not app.active)


USER = chat_pb2.ChatMessage(role=chat_pb2.ROLE_USER, text="Hi")
