"""The program that shares the slots of endpoints among replicas: how many each may hold, by what waits where.

Each member of a pool says what it holds and uses at each endpoint, and its *flows*: the calls of one tenant and priority that
wait and run there. From these follows a target for each member, the slots that it should hold of the pool (`slot_shares.py`).
Free slots are granted towards the targets. A member that holds more than its target gives slots back as they come free, but not
more than others lack. Slots are leased for long, and only the difference moves, so most calls begin and end without the store.

A member holds `granted - returned`, both running totals. What a member uses beyond what it holds (it was alone for a while)
counts as held. So by a grant the sum of what living members hold at an endpoint never gets above its limit, whatever exchange
is lost, or was run though its answer was not heard.
"""

from dataclasses import dataclass, field

from msgspec import Struct

from lexora_router.state.program import ProgramKind, Turn, lua_beside
from lexora_router.state.programs.slot_shares import Counters, Demand, targets

FRESH_SECONDS = 0.5
"""A member that has been silent for longer gets no share of what is free; what it holds stays its own until it is given up."""
ANY_NUMBER = 0
NO_CAP = -1


class EndpointClaim(Struct, array_like=True, frozen=True):
    """What a member says of an endpoint.

    `limit`: attempts that may be under way there over all members (0: any number); `moving` where that is a guess of the
    member's own (`concurrency: auto`). `kept`: the slots it held when the store began to count for it; `returned`: those given
    back since, in all. `in_use`: attempts under way. `usable`: whether calls may go there now.
    """

    address: str
    limit: int
    moving: bool
    kept: int
    returned: int
    in_use: int
    usable: bool


class Flow(Struct, array_like=True, frozen=True):
    """The calls of one tenant and priority at a member; the priority counts for `level` by now. An empty key: all others."""

    key: str
    priority: int
    level: int
    weight: float
    waiting: int
    running: int


class PoolClaim(Struct, array_like=True, frozen=True):
    """What a member says of a pool; without endpoints it leaves the pool.

    `charges` are the weighted tokens by flow that the member has served since the batch before; `tokens` and `calls` are all
    that it has served then. Batches are numbered from 1, and each is said until it was heard; 0: there is none.
    """

    name: str
    endpoints: tuple[EndpointClaim, ...]
    flows: tuple[Flow, ...] = ()
    batch: int = 0
    charges: tuple[tuple[str, float], ...] = ()
    tokens: float = 0.0
    calls: int = 0


class SlotsAsk(Struct, array_like=True, frozen=True):
    """The claims that have changed."""

    pools: tuple[PoolClaim, ...]


class EndpointGrant(Struct, array_like=True, frozen=True):
    """Slots granted in all, the most that may be held now (NO_CAP: no bound), and the attempts of other members there."""

    address: str
    granted: int
    cap: int
    elsewhere: int


class PoolGrant(Struct, array_like=True, frozen=True):
    """What the member should hold of the pool, and the weighted tokens that all members have served of its flows, in all.

    `wanted`: calls of others wait for what it holds beyond the target.
    """

    name: str
    target: int
    wanted: bool
    endpoints: tuple[EndpointGrant, ...]
    served: tuple[tuple[str, float], ...]


class SlotsAnswer(Struct, array_like=True, frozen=True):
    """The member's place among those that live, its grants, and pools that it should claim again at once, since others wait."""

    rank: int
    members: int
    pools: tuple[PoolGrant, ...]
    look: tuple[str, ...]


@dataclass(slots=True)
class _Lease:
    """What one member has at one endpoint."""

    granted: int
    returned: int = 0
    limit: int = 0
    moving: bool = False
    in_use: int = 0
    usable: bool = False

    @property
    def held(self) -> int:
        return max(0, self.granted - self.returned)

    @property
    def occupied(self) -> int:
        return max(self.held, self.in_use)


@dataclass(slots=True)
class _Claim:
    """What one member has in one pool."""

    batch: int = 0  # the last one that was counted
    target: int = 0  # as it heard last
    leases: dict[str, _Lease] = field(default_factory=dict)
    flows: tuple[Flow, ...] = ()

    @property
    def held(self) -> int:
        return sum(lease.held for lease in self.leases.values())

    @property
    def waiting(self) -> int:
        return sum(flow.waiting for flow in self.flows)


@dataclass(slots=True)
class _Pool:
    claims: dict[str, _Claim] = field(default_factory=dict)
    counters: Counters = field(default_factory=Counters)


class SlotsProgram:
    """The memory of all pools."""

    def __init__(self) -> None:
        self._pools: dict[str, _Pool] = {}
        self._seen: dict[str, float] = {}
        self._look: dict[str, set[str]] = {}  # by member: pools where others wait for what it holds, or it may have more

    def run(self, ask: SlotsAsk, turn: Turn) -> SlotsAnswer:
        """Take in what the member claims, and give what it may hold."""
        self._forget(turn)
        self._seen[turn.member] = turn.now
        fresh = {member for member, at in self._seen.items() if turn.now - at <= FRESH_SECONDS}
        grants = []
        for claimed in ask.pools:
            pool = self._pools.setdefault(claimed.name, _Pool())
            if not claimed.endpoints:
                pool.claims.pop(turn.member, None)
                self._pools = {name: each for name, each in self._pools.items() if each.claims}
                continue
            _hear(pool, turn.member, claimed, turn.now)
            grant, others = _grant(pool, turn.member, claimed.name, fresh)
            grants.append(grant)
            for member in others:
                self._look.setdefault(member, set()).add(claimed.name)
            turn.news |= bool(others) and any(claim.waiting for claim in pool.claims.values())
        look = self._look.pop(turn.member, set()) - {claimed.name for claimed in ask.pools}
        living = sorted(turn.members)
        return SlotsAnswer(living.index(turn.member), len(living), tuple(grants), tuple(sorted(look)))

    def _forget(self, turn: Turn) -> None:
        """Take back what the dead held."""
        gone = [member for member in self._seen if member not in turn.members]
        for member in gone:
            del self._seen[member]
            self._look.pop(member, None)
            for name, pool in self._pools.items():
                if pool.claims.pop(member, None) is not None:
                    for other in pool.claims:
                        self._look.setdefault(other, set()).add(name)
        if gone:
            self._pools = {name: each for name, each in self._pools.items() if each.claims}

    def held(self, name: str, address: str) -> dict[str, int]:
        """What each member holds at an endpoint, for tests and people."""
        pool = self._pools.get(name)
        claims = {} if pool is None else pool.claims
        return {member: claim.leases[address].held for member, claim in claims.items() if address in claim.leases}


def _hear(pool: _Pool, member: str, claimed: PoolClaim, now: float) -> None:
    """Take in a claim."""
    claim = pool.claims.setdefault(member, _Claim())
    leases = {}
    for each in claimed.endpoints:
        lease = claim.leases.get(each.address) or _Lease(each.kept)
        lease.returned, lease.limit, lease.moving = max(lease.returned, each.returned), each.limit, each.moving
        lease.in_use, lease.usable = each.in_use, each.usable
        leases[each.address] = lease
    claim.leases, claim.flows = leases, claimed.flows
    if claimed.batch > claim.batch:
        claim.batch = claimed.batch
        pool.counters.charge(claimed.charges, claimed.tokens, claimed.calls, now)


def _limits(pool: _Pool) -> dict[str, int]:
    """The limits that count: the least of what members say; of guesses their mean, by what each has in use."""
    limits = {}
    for address in sorted({address for claim in pool.claims.values() for address in claim.leases}):
        leases = [claim.leases[address] for _, claim in sorted(pool.claims.items()) if address in claim.leases]
        stated = [lease for lease in leases if lease.limit != ANY_NUMBER]
        guesses = [lease for lease in stated if lease.moving and lease.in_use > 0]
        if guesses:
            weight = sum(lease.in_use for lease in guesses)
            limits[address] = max(1, sum(lease.limit * lease.in_use for lease in guesses) // weight)
        elif stated:
            limits[address] = min(lease.limit for lease in stated)
    return limits


def _grant(pool: _Pool, member: str, name: str, fresh: set[str]) -> tuple[PoolGrant, list[str]]:
    """Grant the member what it lacks, as far as it is free; and the members that should look again."""
    claim, limits = pool.claims[member], _limits(pool)
    occupied = dict.fromkeys(limits, 0)
    frozen = 0  # slots of members that say nothing now
    for each, other in sorted(pool.claims.items()):
        for address, lease in other.leases.items():
            if address in limits:
                occupied[address] += lease.occupied
                frozen += 0 if each in fresh else lease.occupied
    live = {each: other for each, other in sorted(pool.claims.items()) if each in fresh}
    usable = [address for address in limits if any(_usable(other, address) for other in live.values())]
    total = max(0, sum(limits[address] for address in usable) - frozen)
    held = {each: other.held for each, other in live.items()}
    target = targets(
        total,
        held,
        [Demand(each, *_row(flow)) for each, other in live.items() for flow in other.flows],
        pool.counters,
    )
    free = {address: max(0, limits[address] - occupied[address]) for address in usable}
    lacking = {each: max(0, target[each] - held[each]) for each in live}
    spare = sum(free.values())
    rest = spare - sum(lacking[each] for each in live if each != member)  # what others do not lack may be had at once
    given = _take(claim, free, max(lacking[member], min(claim.waiting, rest)))
    held[member] += given
    lacking[member] = max(0, target[member] - held[member])
    spare -= given
    short = sum(lacking.values()) - spare  # what has to come from those that hold more than their targets
    news = []
    for each, other in live.items():
        aim = max(target[each], held[each] - max(0, short - lacking[each]))
        can_have = spare > 0 and lacking[each] > 0
        if each != member and (can_have or (aim < other.target and held[each] > aim)):
            news.append(each)
        other.target = aim
    rows = tuple(_row_for(pool, member, address, limits.get(address)) for address in claim.leases)
    served = tuple((flow.key, pool.counters.served(flow.key)) for flow in claim.flows if flow.key)
    wanted = any(other.waiting for each, other in live.items() if each != member)
    return PoolGrant(name, claim.target, wanted, rows, served), news


def _row_for(pool: _Pool, member: str, address: str, limit: int | None) -> EndpointGrant:
    lease, held, elsewhere = pool.claims[member].leases[address], 0, 0
    for each, other in pool.claims.items():
        if address in other.leases:
            held += other.leases[address].held
            elsewhere += 0 if each == member else other.leases[address].in_use
    # A limit that has become smaller than what is held: all give back their part of it.
    cap = NO_CAP if limit is None or held <= limit else lease.held * limit // held
    return EndpointGrant(address, lease.granted, cap, elsewhere)


def _usable(claim: _Claim, address: str) -> bool:
    return address in claim.leases and claim.leases[address].usable


def _row(flow: Flow) -> tuple[str, int, int, float, int, int]:
    return flow.key, flow.priority, flow.level, flow.weight, flow.waiting, flow.running


def _take(claim: _Claim, free: dict[str, int], wanted: int) -> int:
    """Grant so many of the free slots, spread over the endpoints, and first where the member has least; gives how many."""
    given = 0
    while wanted > 0:
        open_to = [address for address in free if free[address] > 0 and _usable(claim, address)]
        if not open_to:
            break
        open_to.sort(key=lambda address: (claim.leases[address].held, -free[address], address))
        each = max(1, wanted // len(open_to))
        for address in open_to:
            number = min(each, free[address], wanted)
            claim.leases[address].granted += number
            free[address] -= number
            wanted -= number
            given += number
    return given


SLOTS = ProgramKind(takes=SlotsAsk, gives=SlotsAnswer, make=SlotsProgram, lua=lua_beside(__file__))
