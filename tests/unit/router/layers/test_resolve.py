import asyncio

import pytest
from tests.support.clock import jumping
from tests.unit.router.support import HANG, HEAD, Client, Frames, Scripted, Step, make_call, make_target

from lexora_router.call import Call, Target
from lexora_router.errors import ModelNotFound, UpstreamBroken
from lexora_router.layers.resolve import Resolve

STREAMING: list[Step] = [HEAD, Frames(b"a")]
KNOWN = (make_target(model="engine-name"), make_target(backend="backup"))


class Routes:
    """Knows one model at once and another after it has asked."""

    def __init__(self, *, slow: bool = False) -> None:
        self.asked: list[str] = []
        self.slow = slow
        self.began = asyncio.Event()

    def find(self, model: str) -> tuple[Target, ...]:
        return KNOWN if model == "known" else ()

    async def discover(self, model: str) -> tuple[Target, ...]:
        self.asked.append(model)
        self.began.set()
        if self.slow:
            await asyncio.sleep(1e6)
        if model != "new":
            raise ModelNotFound(model)
        return (make_target(backend="other"),)


@jumping
async def test_a_known_model_gets_its_targets_and_nobody_is_asked() -> None:
    routes, inner, client, call = Routes(), Scripted(*STREAMING), Client(), make_call(model="known")
    await Resolve(inner, routes=routes)(call, client)
    assert routes.asked == []
    assert call.targets == KNOWN
    assert call.target == KNOWN[0]
    assert (call.receipt.backend, call.receipt.model) == ("main", "engine-name")
    assert client.events == STREAMING


@jumping
async def test_an_unknown_model_is_asked_for() -> None:
    routes, call = Routes(), make_call(model="new")
    await Resolve(Scripted(), routes=routes)(call, Client())
    assert routes.asked == ["new"]
    assert call.receipt.backend == "other"


@jumping
async def test_a_model_that_nobody_serves_ends_the_call_before_anything_else() -> None:
    inner, call = Scripted(), make_call(model="ghost")
    with pytest.raises(ModelNotFound, match="`ghost` does not exist"):
        await Resolve(inner, routes=Routes())(call, Client())
    assert inner.calls == []
    assert (call.target, call.targets) == (None, ())


@pytest.mark.parametrize("before", [[], STREAMING], ids=["before the first event", "after it"])
@jumping
async def test_failures_below_go_on(before: list[Step]) -> None:
    error = UpstreamBroken("gone")
    with pytest.raises(UpstreamBroken) as raised:
        await Resolve(Scripted(*before, error), routes=Routes())(make_call(model="known"), Client())
    assert raised.value is error


@jumping
async def test_cancelled_while_asking() -> None:
    inner, routes = Scripted(), Routes(slow=True)
    task = asyncio.create_task(Resolve(inner, routes=routes)(make_call(model="new"), Client()))
    await routes.began.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert inner.calls == []


@jumping
async def test_cancelled_while_streaming() -> None:
    inner, client = Scripted(*STREAMING, HANG), Client()
    task = asyncio.create_task(Resolve(inner, routes=Routes())(make_call(model="known"), client))
    await inner.begun()
    await client.got(2)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (inner.cancelled, inner.running) == (1, 0)


@jumping
async def test_only_a_call_for_auto_is_shown_to_who_chooses() -> None:
    shown: list[Call] = []

    async def auto(call: Call) -> None:
        shown.append(call)
        call.model = "known"

    routes = Routes()
    handler = Resolve(Scripted(), routes=routes, auto=auto)
    named, asking = make_call(model="known"), make_call(model="auto")
    await handler(named, Client())
    await handler(asking, Client())
    assert shown == [asking]
    assert asking.targets == KNOWN
    with pytest.raises(ModelNotFound, match="`auto`"):
        await Resolve(Scripted(), routes=routes)(make_call(model="auto"), Client())
