"""How the slots of a pool are divided among the replicas whose calls want them.

Levels come first: a level gets slots when all that is above it has what it can use. Within a level the flows share by the
Virtual Token Counter, as in each replica's own queue (`policy/fair_queue.py`): the counter of a flow is what it was served on
all replicas, divided by its weight. Calls take slots one by one, but slots are leased for many calls. So a level is filled like
water: each slot would raise its flow's counter by what a slot serves in about a second (`Counters.step`); slots go where the
counters would be lowest afterwards. With equal counters that is a share by weight, and a flow that has fallen behind gets more
until it has caught up. Shares by weight alone would never make up for longer calls; slots given by counters alone swing, since
what was moved shows in the counters only when the next calls have ended.

A priority rises as its oldest call waits, and in all replicas together: calls that came at the same time wait for longer where
more of them came, and would go before those of other replicas for no other reason.

A call that waits at the highest level does not wait for a slot of its own replica only: replicas that serve lower levels give
their next slots for it, and have them back when it runs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil, floor

MAX_COUNTERS = 128
SLACK = 0.05
QUIET_SLACK = 0.3
"""A slot moves only when two members are off by more than 1, and by this part of a share: more while no call waits for it."""
WINDOW_SECONDS = 1.0
KEPT = 0.8
"""Part of what was served that still counts in the average after another window."""
_ROUNDS = 40
"""Halvings of the interval that has the water's level in it."""


@dataclass(frozen=True, slots=True)
class Demand:
    """The calls of a flow at a member: of one tenant and `priority`, which has risen to `level` there."""

    member: str
    key: str
    priority: int
    level: int
    weight: float
    waiting: int
    running: int


@dataclass(slots=True)
class Counters:
    """The counters of a pool's flows, of which at most MAX_COUNTERS are remembered: weighted tokens, also in all.

    A flow that waits for nothing earns no credit: it comes back at the `floor`, the least counter of those that waited at the
    highest level last.
    """

    floor: float = 0.0
    step: float = 1.0  # tokens that a slot serves in a second or so; at least those of two calls
    _flows: dict[str, tuple[float, float]] = field(default_factory=dict)  # counter and tokens in all
    _since: float = -1.0
    _tokens: float = 0.0
    _calls: float = 0.0
    _passed: float = 0.0  # seconds before `_since` in which the tokens and calls were served
    busy: int = 1  # slots in use, as seen last

    def of(self, key: str) -> float:
        """The counter of a flow."""
        return max(self.floor, self._flows[key][0]) if key in self._flows else self.floor

    def served(self, key: str) -> float:
        """Weighted tokens served of a flow since it is remembered."""
        return self._flows[key][1] if key in self._flows else 0.0

    def charge(self, charges: Sequence[tuple[str, float]], tokens: float, calls: int, now: float) -> None:
        """Count what a member has served."""
        for key, amount in charges:
            self._flows[key] = (max(0.0, self.of(key) + amount), max(0.0, self.served(key) + amount))
        if len(self._flows) > MAX_COUNTERS:
            ranked = sorted(self._flows, key=lambda key: (-self._flows[key][0], key))
            self._flows = {key: self._flows[key] for key in ranked[: MAX_COUNTERS // 2]}
        self._tokens += tokens
        self._calls += calls
        if self._since < 0:
            self._since = now
        passed = now - self._since
        if passed >= WINDOW_SECONDS and self._calls > 0:
            per_second, per_call = self._tokens / (passed + self._passed), self._tokens / self._calls
            self.step = max(1.0, per_second / max(1, self.busy), 2 * per_call)
            self._since, self._passed = now, (passed + self._passed) * KEPT
            self._tokens, self._calls = self._tokens * KEPT, self._calls * KEPT

    def lift(self, keys: Sequence[str]) -> None:
        """These wait at the highest level: none of them starts below the floor, which is the least of them from now on."""
        if keys:
            self.floor = max(self.floor, min(self.of(key) for key in keys))


def targets(total: int, held: Mapping[str, int], demands: Sequence[Demand], counters: Counters) -> dict[str, int]:
    """How many of `total` slots each member should hold; `held` are what they hold, whose keys are the members."""
    counters.busy = max(1, sum(demand.running for demand in demands))
    slack = SLACK if any(demand.waiting for demand in demands) else QUIET_SLACK
    return _hurry(_whole(total, held, shares(total, sorted(held), demands, counters), slack), held, demands)


def shares(total: int, members: Sequence[str], demands: Sequence[Demand], counters: Counters) -> dict[str, float]:
    """The same as fractions: what is not wanted by any call is divided evenly."""
    share = dict.fromkeys(members, 0.0)
    if not members:
        return share
    levels = _levels(demands)
    top = _top(demands, levels)
    counters.lift([demand.key for demand in demands if demand.waiting and levels[demand.priority] == top])
    left = float(total)
    for level in sorted(set(levels.values()), reverse=True):
        rows = [demand for demand in demands if levels[demand.priority] == level]
        wants: dict[str, float] = {}  # by flow; what is left over of a member's is a flow of its own
        weights: dict[str, float] = {}
        for row in rows:
            flow = row.key or f"/{row.member}"
            wants[flow] = wants.get(flow, 0.0) + row.running + row.waiting
            weights[flow] = max(weights.get(flow, 0.0), row.weight)
        got = _fill(left, wants, weights, counters)
        for row in rows:
            flow = row.key or f"/{row.member}"
            if wants[flow] > 0:
                share[row.member] += got[flow] * (row.running + row.waiting) / wants[flow]
        left -= min(left, sum(got.values()))
    for member in members:
        share[member] += left / len(members)
    return share


def _levels(demands: Sequence[Demand]) -> dict[int, int]:
    """Of each priority the level that it has risen to."""
    levels: dict[int, int] = {}
    for demand in demands:
        levels[demand.priority] = max(levels.get(demand.priority, 0), demand.level)
    return levels


def _top(demands: Sequence[Demand], levels: Mapping[int, int]) -> int:
    """The highest level at which calls wait."""
    return max((levels[demand.priority] for demand in demands if demand.waiting), default=-1)


def _fill(amount: float, wants: Mapping[str, float], weights: Mapping[str, float], counters: Counters) -> dict[str, float]:
    """Divide the amount among flows that want more in all, by the water's level; else each gets what it wants."""
    if sum(wants.values()) <= amount:
        return dict(wants)
    step = counters.step
    low = min(counters.of(flow) for flow in wants)
    high = max(counters.of(flow) + want * step / weights[flow] for flow, want in wants.items())

    def filled(level: float) -> dict[str, float]:
        return {flow: min(want, max(0.0, (level - counters.of(flow)) * weights[flow] / step)) for flow, want in wants.items()}

    for _ in range(_ROUNDS):
        middle = (low + high) / 2
        if sum(filled(middle).values()) < amount:
            low = middle
        else:
            high = middle
    return filled(low)


def _whole(total: int, held: Mapping[str, int], share: Mapping[str, float], slack: float) -> dict[str, int]:
    """Whole slots near the shares, `total` in all: a slot moves when that makes the two members better by more than `slack`."""
    target = {each: max(0, min(max(held[each], ceil(share[each] - 1)), floor(share[each] + 1))) for each in sorted(held)}
    over = {each: target[each] - share[each] for each in target}
    left = total - sum(target.values())

    def move(member: str, number: int) -> None:
        target[member] += number
        over[member] += number

    while left and target:
        if left > 0:
            move(min(target, key=lambda each: (over[each], each)), 1)
        else:
            move(max((each for each in target if target[each]), key=lambda each: (over[each], each)), -1)
        left -= 1 if left > 0 else -1
    while target:
        most, least = max(target, key=lambda each: (over[each], each)), min(target, key=lambda each: (over[each], each))
        if over[most] - over[least] <= 1 + slack * (1 + abs(share[most])) or not target[most]:
            break
        move(most, -1)
        move(least, 1)
    return target


def _hurry(target: dict[str, int], held: Mapping[str, int], demands: Sequence[Demand]) -> dict[str, int]:
    """Let those that serve lower levels give slots at once for the calls that wait at the highest one."""
    levels = _levels(demands)
    top = _top(demands, levels)
    waits, lower = dict.fromkeys(target, 0), dict.fromkeys(target, 0)
    for demand in demands:
        if levels[demand.priority] < top:
            lower[demand.member] += demand.running + demand.waiting
        elif levels[demand.priority] == top:
            waits[demand.member] += demand.waiting
    for member in sorted(target):
        needed = waits[member] - max(0, target[member] - held[member])
        while needed > 0:
            givers = [each for each in target if not waits[each] and min(lower[each], target[each]) > 0]
            if not givers:
                break
            giver = max(givers, key=lambda each: (target[each], each))
            number = max(1, min(needed, lower[giver], target[giver]) // len(givers))
            target[giver] -= number
            lower[giver] -= number
            target[member] += number
            needed -= number
    return target
