import pytest
from tests.unit.router.support import HEAD, Client, FakeLease, Scripted, make_call

from lexora_contract.answer import Reply
from lexora_contract.port import Sink
from lexora_router.call import Call, Handler, WholeAnswer, compose
from lexora_router.errors import UpstreamInvalid


def naming(name: str, order: list[str]) -> "type[object]":
    class Layer:
        def __init__(self, inner: Handler) -> None:
            self._inner = inner

        async def __call__(self, call: Call, sink: Sink) -> None:
            order.append(name)
            await self._inner(call, sink)

    return Layer


async def test_compose_puts_the_first_layer_outermost() -> None:
    order: list[str] = []
    inner = Scripted(HEAD)
    handler = compose(naming("outer", order), naming("inner", order), around=inner)  # type: ignore[arg-type]  # classes made here
    client = Client()
    await handler(make_call(), client)
    assert order == ["outer", "inner"]
    assert client.events == [HEAD]


async def test_compose_of_no_layer_is_the_handler_itself() -> None:
    inner = Scripted()
    assert compose(around=inner) is inner


def test_an_answer_begins_once_and_its_lease_hears_it() -> None:
    lease = FakeLease()
    call = make_call(lease=lease)
    assert not call.begun
    call.answers(7.0)
    assert (call.begun, call.receipt.first_event_at, lease.first_tokens) == (True, 7.0, 1)


def test_a_sink_for_a_whole_answer_reads_it_and_takes_no_stream() -> None:
    sink = WholeAnswer(lambda reply: reply.body)
    sink.reply(Reply(HEAD, b"{}"))
    assert sink.answer == b"{}"
    with pytest.raises(UpstreamInvalid):
        sink.head(HEAD)


def test_calls_do_not_share_a_receipt() -> None:
    assert make_call().receipt is not make_call().receipt
