import asyncio
from dataclasses import dataclass

import pytest
from tests.support.clock import jumping, now
from tests.unit.router.support import FakeEndpoint, make_call, make_pool

from lexora_router.call import Outcome
from lexora_router.fleet.stalls import silences
from lexora_router.policy.ejection import EjectionRules


@dataclass
class Listener:
    endpoint: FakeEndpoint | None
    waiting_since: float | None = None
    heard: bool = False
    overdue: bool = False

    def hears(self) -> bool:
        return self.heard


ONE, OTHER = FakeEndpoint(address="http://e:1"), FakeEndpoint(address="http://e:2")


@pytest.fixture(autouse=True)
def _nothing_heard() -> None:
    ONE.condition.heard_at = OTHER.condition.heard_at = 0.0


def waits(endpoint: FakeEndpoint, *since: float) -> list[Listener]:
    return [Listener(endpoint, instant) for instant in since]


def test_silence_is_as_long_as_the_oldest_wait() -> None:
    found = silences([*waits(ONE, 80.0, 90.0, 90.0), *waits(OTHER, 99.0, 96.0, 95.0, 97.0), Listener(None, 1.0)], 100.0)
    assert found == {ONE.address: 20.0, OTHER.address: 5.0}


def test_a_few_waits_say_nothing() -> None:
    assert silences([*waits(ONE, 10.0, 20.0), Listener(ONE)], 100.0) == {}


def test_two_overdue_unary_calls_say_something() -> None:
    late = [Listener(ONE, 60.0, overdue=True), Listener(ONE, 70.0, overdue=True)]
    assert silences(late[:1], 100.0) == {}
    assert silences(late, 100.0) == {ONE.address: 40.0}
    assert silences([*late, Listener(ONE, heard=True)], 100.0) == {ONE.address: 0.0}


def test_where_no_stream_waits_there_is_no_silence() -> None:
    assert silences([Listener(ONE), Listener(None)], 100.0) == {}


@pytest.mark.parametrize("order", [1, -1])
def test_an_endpoint_that_talks_to_somebody_is_not_silent(order: int) -> None:
    waiting = waits(ONE, 10.0, 11.0, 12.0)
    assert silences([*waiting, Listener(ONE, heard=True)][::order], 100.0) == {ONE.address: 0.0}
    assert silences([*waiting, Listener(ONE)], 130.0) == {ONE.address: 30.0}


def test_after_a_reload_an_engine_is_another_object_and_its_waits_are_counted_together() -> None:
    again = FakeEndpoint(address=ONE.address)
    again.condition = ONE.condition
    assert silences([*waits(ONE, 80.0, 90.0), *waits(again, 95.0)], 100.0) == {ONE.address: 20.0}


@pytest.mark.parametrize(("stream", "ejected"), [(True, True), (False, False)], ids=["streams", "unary answers"])
@jumping
async def test_a_pool_ejects_an_endpoint_that_gives_no_tokens(stream: bool, ejected: bool) -> None:
    pool = make_pool(*(FakeEndpoint(address=f"http://e:{i}") for i in range(2)), ejection=EjectionRules(max_silence=30.0))
    leases = [await pool.admit(make_call(stream=stream)) for _ in range(6)]
    for lease in leases:
        await lease.next()
    hung, well = pool.endpoints
    talks = [lease for lease in leases if lease.endpoint is well]
    assert len(talks) == 3
    talks[0].answered()
    for _ in range(31):
        await asyncio.sleep(1)
        talks[0].call.receipt.events += 1
        pool.judge()
    assert hung.condition.available(now()) is not ejected
    assert well.condition.available(now())
    for lease in leases:
        lease.ended(Outcome.NEUTRAL)
        lease.close()


@pytest.mark.parametrize("tokens", [False, True], ids=["hung", "slow"])
@jumping
async def test_clients_that_do_not_wait_for_long_hide_no_silence(tokens: bool) -> None:
    hung, well = FakeEndpoint(address="http://e:1"), FakeEndpoint(address="http://e:2", limit=1)
    pool = make_pool(hung, well, ejection=EjectionRules(max_silence=30.0))
    hung.limit = 0
    talk = await pool.admit(make_call())
    await talk.next()
    hung.limit = None
    for _ in range(4):
        leases = [await pool.admit(make_call()) for _ in range(5)]
        for lease in leases:
            assert await lease.next() is hung
        for _ in range(10):
            await asyncio.sleep(1)
            pool.judge()
        if tokens:
            leases[0].answered()
        for lease in leases:
            lease.ended(Outcome.NEUTRAL)
            lease.close()
        if not hung.condition.available(now()):
            break
    assert hung.condition.available(now()) is tokens
    talk.close()


@jumping
async def test_streams_that_have_begun_do_not_wait_for_a_first_token() -> None:
    pool = make_pool(*(FakeEndpoint(address=f"http://e:{i}") for i in range(2)), ejection=EjectionRules(max_silence=30.0))
    leases = [await pool.admit(make_call()) for _ in range(6)]
    for lease in leases:
        await lease.next()
        lease.answered()
    for _ in range(31):
        await asyncio.sleep(1)
        pool.judge()
    assert all(endpoint.condition.available(now()) for endpoint in pool.endpoints)
    for lease in leases:
        lease.ended(Outcome.NEUTRAL)
        lease.close()
