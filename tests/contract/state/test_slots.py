"""The program of slots: the same in Lua as in Python."""

import pytest
from hypothesis import strategies as st

from lexora_router.state.programs.slots import SLOTS, EndpointClaim, Flow, PoolClaim, SlotsAnswer, SlotsAsk
from tests.contract.state.side_by_side import SideBySide, check
from tests.support.valkey import ValkeyProcess
from tests.unit.router.leases.members import made_up, play

SMALL = st.integers(0, 6)
CLAIMS = st.builds(
    EndpointClaim,
    address=st.sampled_from(["http://e:1", "http://e:2", "http://ü:3"]),
    limit=st.sampled_from([0, 1, 2, 5, 8, 16]),
    moving=st.booleans(),
    kept=SMALL,
    returned=SMALL,
    in_use=SMALL,
    usable=st.sampled_from([True, True, True, False]),
)
FLOWS = st.builds(
    Flow,
    key=st.sampled_from(["", "0/a", "50/a", "50/b", "100/c"]),
    priority=st.sampled_from([0, 50, 100]),
    level=st.sampled_from([0, 50, 100]),
    weight=st.sampled_from([1.0, 2.0, 0.5]),
    waiting=st.integers(0, 30),
    running=SMALL,
)
CHARGES = st.lists(st.tuples(st.sampled_from(["0/a", "50/a", "50/b", "100/c"]), st.integers(-50, 5000).map(float)), max_size=3)
POOLS = st.builds(
    PoolClaim,
    name=st.sampled_from(["main", "other"]),
    endpoints=st.lists(CLAIMS, max_size=3, unique_by=lambda claim: claim.address).map(tuple),
    flows=st.lists(FLOWS, max_size=4).map(tuple),
    batch=st.integers(0, 20),
    charges=CHARGES.map(tuple),
    tokens=st.integers(0, 9000).map(float),
    calls=SMALL,
)
ASKS = st.builds(SlotsAsk, st.lists(POOLS, max_size=2, unique_by=lambda pool: pool.name).map(tuple))


def test_made_up_claims_have_the_same_grants(server: ValkeyProcess) -> None:
    check(server, {"slots": SLOTS}, {"slots": ASKS}, examples=40)


def test_more_flows_than_are_remembered(server: ValkeyProcess) -> None:
    endpoint = EndpointClaim("http://e:1", 8, False, 0, 0, 0, True)
    with SideBySide(server, {"slots": SLOTS}) as both:
        both.join("a")
        for batch in range(1, 8):
            charges = tuple((f"50/{batch}-{number}", float(number * batch % 17)) for number in range(40))
            flows = tuple(Flow(key, 50, 50, 1.0, 1, 0) for key, _ in charges[:5])
            both.exchange("a", ("slots", SlotsAsk((PoolClaim("main", (endpoint,), flows, batch, charges, 99.0, 3),))))
            both.advance(4)


class AtBoth:
    """A SlotStore: the two, side by side."""

    def __init__(self, both: SideBySide) -> None:
        self._both = both

    @property
    def now(self) -> float:
        return self._both.now

    def advance(self, eighths: int) -> None:
        self._both.advance(eighths)

    def exchange_slots(self, member: str, ask: SlotsAsk, *, join: bool) -> SlotsAnswer | None:
        if join:
            self._both.join(member)
            return None
        answer = self._both.exchange(member, ("slots", ask))
        return answer.answers[0] if answer.known else None


@pytest.mark.parametrize("seed", range(6))
def test_members_that_take_and_give_have_the_same_grants(server: ValkeyProcess, seed: int) -> None:
    with SideBySide(server, {"slots": SLOTS}) as both:
        play(AtBoth(both), made_up(seed, 600, ends=("die", "alone")))
