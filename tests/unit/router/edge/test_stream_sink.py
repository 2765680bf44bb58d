import asyncio
from collections.abc import Callable

import pytest
from tests.support.clock import jumping
from tests.unit.router.support import HEAD

from lexora.v1.receipt_pb2 import Receipt
from lexora.v1.router_pb2 import StreamResponse
from lexora_contract.answer import Reply
from lexora_contract.port import Flow
from lexora_router.edge.stream_sink import HIGH_WATER_BYTES, StreamSink
from lexora_router.errors import UpstreamInvalid


class Wire:
    """Writes one message at a time, each for as long as the gate is closed."""

    def __init__(self) -> None:
        self.messages: list[StreamResponse] = []
        self.gate = asyncio.Event()
        self.fault: BaseException | None = None

    async def send(self, message: StreamResponse) -> None:
        self.messages.append(message)
        await self.gate.wait()
        if self.fault is not None:
            raise self.fault


def sink_on(wire: Wire, kind: str = "raw", request_id: Callable[[], str] = lambda: "r") -> StreamSink:
    def put_receipt(message: Receipt) -> None:
        message.request_id = request_id()

    return StreamSink(kind, wire.send, put_receipt, Flow())


@jumping
async def test_what_comes_while_a_write_is_under_way_travels_as_one_message() -> None:
    wire = Wire()
    sink = sink_on(wire)
    sink.head(HEAD)
    for number in range(10):
        sink.frames(b"data: %d\n\n" % number)
        await asyncio.sleep(0.01)
    assert [message.WhichOneof("event") for message in wire.messages] == ["started"]
    wire.gate.set()
    await sink.end()
    first, second, last = wire.messages
    assert first.started.HasField("head")
    assert first.started.receipt.request_id == "r"
    assert second == StreamResponse(delta={"frames": b"".join(b"data: %d\n\n" % number for number in range(10))})
    assert last == StreamResponse(completed={"receipt": Receipt(request_id="r")})
    sink.close()


@jumping
async def test_beyond_a_bound_the_engine_is_read_no_further_until_it_is_written() -> None:
    wire, flow = Wire(), Flow()
    sink = StreamSink("raw", wire.send, Receipt.SetInParent, flow)
    sink.head(HEAD)
    sink.frames(b"a")
    await asyncio.sleep(0.01)
    sink.frames(b"x" * (HIGH_WATER_BYTES - 1))
    assert not flow.paused
    sink.frames(b"xx")
    assert flow.paused
    wire.gate.set()
    await asyncio.sleep(0.01)
    assert not flow.paused
    assert len(wire.messages[1].delta.frames) == HIGH_WATER_BYTES + 2
    await sink.end()


@pytest.mark.parametrize("fault", [asyncio.CancelledError(), ZeroDivisionError()], ids=["the client is gone", "a bug"])
@jumping
async def test_a_write_that_fails_ends_the_call(fault: BaseException) -> None:
    wire = Wire()
    wire.fault = fault

    async def call() -> None:
        sink = sink_on(wire)
        try:
            sink.head(HEAD)
            sink.frames(b"a")
            await asyncio.sleep(1000)
        finally:
            sink.close()

    task = asyncio.create_task(call())
    await asyncio.sleep(1)
    wire.gate.set()
    with pytest.raises(type(fault)):
        await task


@jumping
async def test_a_call_that_ends_leaves_no_writer() -> None:
    wire = Wire()
    sink = sink_on(wire)
    sink.head(HEAD)
    sink.frames(b"a")
    await asyncio.sleep(0.01)
    sink.close()
    await asyncio.sleep(0.01)  # a task left behind fails the test


@jumping
async def test_a_whole_answer_waits_for_the_end_and_a_typed_stream_has_none() -> None:
    wire = Wire()
    wire.gate.set()
    sink = sink_on(wire)
    sink.reply(Reply(HEAD, b"{}"))
    assert wire.messages == []
    await sink.end()
    (message,) = wire.messages
    assert message.completed.reply.body == b"{}"
    with pytest.raises(UpstreamInvalid):
        sink_on(wire, "chat").reply(Reply(HEAD, b"{}"))
