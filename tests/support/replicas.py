"""Replicas that share one store, without a network: each exchange has the fate that a test gives it."""

from collections.abc import Callable, Generator
from typing import Literal, Protocol

from msgspec import msgpack

from lexora_router.leases.credit import Credit
from lexora_router.leases.leased_bucket import LeasedBucket
from lexora_router.policy.rate_charge import Decision
from lexora_router.policy.rate_limiter import RateLimiter
from lexora_router.policy.rate_limits import LimitRules, RateLimits
from lexora_router.state.memory import Store
from lexora_router.state.port import Ask, Batch
from lexora_router.state.programs.credit import CREDIT, CreditAnswer, CreditAsk

TTL = 3.0
Fate = Literal["heard", "lost", "unheard"]


class SharedStore(Protocol):
    """What a World needs of a store; `None` for an answer where nothing was asked or the member is not known."""

    def exchange(self, member: str, ask: CreditAsk | None, *, join: bool) -> tuple[bool, int, CreditAnswer | None]: ...
    def leave(self, member: str) -> None: ...
    def empty(self) -> None: ...
    def at(self, now: float) -> None: ...


class MemoryStore:
    """The store in memory."""

    def __init__(self) -> None:
        self._now = 0.0
        self._number = 0
        self.empty()

    def empty(self) -> None:
        self._store = Store({"credit": CREDIT})

    def at(self, now: float) -> None:
        self._now = now

    def leave(self, member: str) -> None:
        self._store.leave(member)

    def __len__(self) -> int:
        """Buckets in its memory."""
        _, program = self._store._programs["credit"]
        return len(program._buckets)  # type: ignore[attr-defined]

    def exchange(self, member: str, ask: CreditAsk | None, *, join: bool) -> tuple[bool, int, CreditAnswer | None]:
        self._number += 1
        asks = () if ask is None else (Ask("credit", msgpack.encode(ask)),)
        answer, _ = self._store.exchange(Batch(member, TTL, self._number, join, asks), self._now)
        heard = msgpack.decode(answer.answers[0], type=CreditAnswer) if answer.answers else None
        return answer.known, answer.members, heard


class World:
    """The store, its clock and its members."""

    def __init__(self, limits: RateLimits, replicas: int = 3, store: SharedStore | None = None) -> None:
        self.now = 1000.0
        self.limits = limits
        self.exchanges = 0
        self.ids = 0
        self.store = MemoryStore() if store is None else store
        self.step(0)
        self.replicas = [Replica(self) for _ in range(replicas)]
        for _ in range(2):
            for replica in self.replicas:
                replica.exchange()

    def step(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds
        self.store.at(self.now)

    def tick(self, seconds: float = 0.1, times: int = 1) -> None:
        """Let time pass, with the usual exchanges."""
        for _ in range(times):
            self.step(seconds)
            for replica in self.replicas:
                replica.exchange()


class Replica:
    """A replica: its limiter over leases, and what a link does for it."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.member = self._new()
        self.degraded = True
        self.members = 1
        self.nudged = False
        self.credit = Credit(self, lambda: world.now)
        rules = LimitRules(world.limits)
        self.limiter = RateLimiter(rules, world.now, make=self.credit.buckets)

    def check(self, tokens: int = 0, tenant: str = "a", fate: Fate = "heard") -> Decision:
        """Charge a call as the layer does: at once, else after an exchange."""
        decision = self.limiter.check(tenant, tokens, self.world.now)
        for _ in range(2):
            if decision.allowed:
                break
            charged = [buckets for _, buckets in self.limiter.charged(tenant, self.world.now)]
            if not self.credit.within_reach(charged, tokens, self.world.now):
                break
            waiting = self.credit.obtain(charged, tokens)
            try:
                waiting.send(None)
            except StopIteration:
                pass
            else:
                self.exchange(fate)
                waiting.close()
            decision = self.limiter.check(tenant, tokens, self.world.now)
        return decision

    def lease(self, dimension: str, tenant: str = "a") -> LeasedBucket:
        """Its lease of requests, tokens or places."""
        ((_, buckets),) = self.limiter.charged(tenant, self.world.now)
        found = getattr(buckets, dimension)
        assert isinstance(found, LeasedBucket)
        return found

    def exchange(self, fate: Fate = "heard") -> None:
        """One exchange, as StateLink does it."""
        now, self.nudged = self.world.now, False
        ask = self.credit.ask(now)
        if fate == "lost":
            self._lost()
            return
        known, heard = self._say(ask)
        if fate == "unheard":
            self._lost()
        elif not known:
            self.member = self._new()
            self._say(None, join=True)
            self._found(fresh=True)
        elif self.degraded:
            self._found(fresh=False)
        elif heard is not None:
            self.credit.hear(heard, now)

    def die(self) -> None:
        """Without a word."""
        self.world.replicas.remove(self)

    def leave(self) -> None:
        """At the end of a drain."""
        self.exchange()
        self.world.store.leave(self.member)
        self.world.replicas.remove(self)

    def nudge(self) -> None:
        self.nudged = True

    async def exchanged(self) -> bool:
        if self.degraded:
            return False
        await _Once()
        return True

    def _new(self) -> str:
        self.world.ids += 1
        return f"m{self.world.ids}"

    def _say(self, ask: CreditAsk | None, *, join: bool = False) -> tuple[bool, CreditAnswer | None]:
        self.world.exchanges += 1
        known, self.members, heard = self.world.store.exchange(self.member, ask, join=join)
        return known, heard

    def _lost(self) -> None:
        if not self.degraded:
            self.degraded = True
            self.credit.alone(1 / max(self.members, 1), self.world.now)

    def _found(self, *, fresh: bool) -> None:
        self.degraded = False
        self.credit.together(self.world.now, fresh=fresh)


class _Once:
    def __await__(self) -> Generator[None, None, None]:
        yield


class Spent:
    """What was spent, against one bucket that has it all: `over` is how much of it was too much."""

    def __init__(self, rate: float, burst: float, now: Callable[[], float]) -> None:
        self.rate = rate
        self.burst = burst
        self.now = now
        self.at = self.began = now()
        self.level = burst
        self.over = 0.0
        self.total = 0.0

    @property
    def allowed(self) -> float:
        """All that may have been spent until now."""
        return self.burst + self.rate * (self.at - self.began)

    def add(self, amount: float) -> None:
        now = self.now()
        self.level = min(self.burst, self.level + (now - self.at) * self.rate) - amount
        self.at = now
        self.total += amount
        self.over = max(self.over, -self.level)
