import pytest
from tests.unit.router.support import HEAD, Client, Scripted, make_call

from lexora_router.call import Call, Commit, Emit, Event, Frames, Handler, compose


def naming(name: str, order: list[str]) -> "type[object]":
    class Layer:
        def __init__(self, inner: Handler) -> None:
            self._inner = inner

        async def __call__(self, call: Call, emit: Emit) -> None:
            order.append(name)
            await self._inner(call, emit)

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


async def test_commit_remembers_the_first_event() -> None:
    client = Client()
    commit = Commit(client)
    assert not commit.done
    await commit(Frames(b"a"))
    assert commit.done
    assert client.events == [Frames(b"a")]


async def test_commit_is_made_even_when_the_client_is_gone() -> None:
    async def gone(event: Event) -> None:
        raise ConnectionResetError

    commit = Commit(gone)
    with pytest.raises(ConnectionResetError):
        await commit(HEAD)
    assert commit.done


def test_calls_do_not_share_a_receipt() -> None:
    assert make_call().receipt is not make_call().receipt
