import pytest
from tests.support.clock import jumping
from tests.unit.router.support import HEAD, Client, FakeEndpoint, FakeLease, Frames, Scripted, Step, make_call

from lexora_contract.port import Sink
from lexora_router.call import Call
from lexora_router.errors import RouterError, UpstreamUnreachable
from lexora_router.layers.resend import Resend

STREAMING: list[Step] = [HEAD, Frames(b"a")]
STALE = UpstreamUnreachable("closed", "stale")


class Turns:
    """An inner handler with a script for each turn."""

    def __init__(self, *scripts: list[Step]) -> None:
        self.scripts = [Scripted(*script) for script in scripts]

    async def __call__(self, call: Call, sink: Sink) -> None:
        await self.scripts.pop(0)(call, sink)


@jumping
async def test_a_stale_connection_is_replaced_in_the_same_slot() -> None:
    client, lease = Client(), FakeLease(FakeEndpoint())
    await Resend(Turns([STALE], STREAMING))(make_call(lease=lease), client)
    assert (client.events, lease.stays, lease.pauses) == (STREAMING, 1, [])


@pytest.mark.parametrize("first", [[STALE], []], ids=["a second stale one", "another failure"])
@jumping
async def test_it_is_sent_again_once_and_for_that_only(first: list[Step]) -> None:
    failure = STALE if first else UpstreamUnreachable("reset")
    inner = Turns(*([first] if first else []), [failure], STREAMING)
    with pytest.raises(RouterError) as raised:
        await Resend(inner)(make_call(lease=FakeLease(FakeEndpoint())), Client())
    assert raised.value is failure
    assert len(inner.scripts) == 1


@jumping
async def test_once_in_the_life_of_a_call() -> None:
    call, inner = make_call(lease=FakeLease(FakeEndpoint())), Turns([STALE], STREAMING, [STALE], STREAMING)
    await Resend(inner)(call, Client())
    with pytest.raises(UpstreamUnreachable):
        await Resend(inner)(call, Client())
