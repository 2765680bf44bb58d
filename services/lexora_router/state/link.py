"""A replica's link to the store: one exchange at a time carries what all its participants have to say."""

import asyncio
from collections.abc import Callable
from secrets import token_hex
from typing import Any, Protocol

import structlog
from msgspec import Struct

from lexora_router.state.port import Answer, Ask, Batch, SharedState, StateUnavailable

TICK_SECONDS = 0.1
TTL_SECONDS = 3.0
"""A member that has been silent for so long is given up: its slots and credit are free again."""

_log = structlog.get_logger("lexora.state")


class Participant(Protocol):
    """What of a replica is shared. Every method is synchronous and quick; `now` is the replica's monotonic clock."""

    program: str

    def ask(self, now: float) -> Struct | None:
        """What it has to say or to ask in an exchange now; None: nothing."""
        ...

    def hear(self, answer: Any, now: float) -> None:
        """The program's answer to the last `ask`."""

    def alone(self, share: float, now: float) -> None:
        """The store is out of reach: `share` (0 to 1) of all there is belongs to this replica until `together`."""

    def together(self, now: float, *, fresh: bool) -> None:
        """The store answers, for the first time or again; `fresh`: it knows nothing of this member, whose totals begin at 0."""


class StateLink:
    """Keeps the membership, and exchanges for the participants: each tick, and at once where one asks for it.

    While the store does not answer, the link is `degraded`: nothing waits for it then, and the participants go on alone.
    `timeout` is in seconds; `clock` is monotonic.
    """

    def __init__(
        self,
        state: SharedState,
        *,
        timeout: float,
        clock: Callable[[], float],
        tick: float = TICK_SECONDS,
        ttl: float = TTL_SECONDS,
    ) -> None:
        self.member = token_hex(8)
        self.members = 1  # replicas that live, as last heard
        self.degraded = True  # until the first exchange
        self.reason = "the store has not answered yet"
        self._state = state
        self._timeout = timeout
        self._clock = clock
        self._tick = tick
        self._ttl = ttl
        self._epoch = ""
        self._participants: list[Participant] = []
        self._wanted = asyncio.Event()
        self._next: asyncio.Future[bool] | None = None
        state.on_news(self._on_news)

    def join(self, participant: Participant) -> None:
        """Exchange for this one, too."""
        self._participants.append(participant)

    def nudge(self) -> None:
        """Let the next exchange be now."""
        self._wanted.set()

    async def exchanged(self) -> bool:
        """Wait for an exchange that begins from here on, `state.timeout` at most; False: the store is out of reach.

        Calls that wait at the same time share one.
        """
        if self.degraded:
            return False
        if self._next is None:
            self._next = asyncio.get_running_loop().create_future()
        self._wanted.set()
        return await asyncio.shield(self._next)

    async def run(self) -> None:
        """Exchange until cancelled."""
        while True:
            await self.exchange()
            try:
                async with asyncio.timeout(self._tick):
                    await self._wanted.wait()
            except TimeoutError:
                pass

    async def exchange(self) -> None:
        """One exchange now."""
        self._wanted.clear()
        waiting, self._next = self._next, None
        now = self._clock()
        asked = [(each, Ask(each.program, request)) for each in self._participants if (request := each.ask(now)) is not None]
        heard = False
        try:
            async with asyncio.timeout(self._timeout):
                answer = await self._state.exchange(Batch(self.member, self._ttl, tuple(ask for _, ask in asked)))
            heard = self._found(answer, [each for each, _ in asked])
        except (StateUnavailable, TimeoutError) as error:
            self._lost(str(error) or f"no answer within {self._timeout:g} s")
        finally:
            if waiting is not None and not heard and not self.degraded and self._next is None:
                self._next = waiting  # what was asked is asked again at once
            elif waiting is not None and not waiting.done():
                waiting.set_result(heard)

    async def leave(self) -> None:
        """Give everything back; the store may be out of reach."""
        try:
            async with asyncio.timeout(self._timeout):
                await self._state.leave(self.member)
        except (StateUnavailable, TimeoutError):
            pass
        await self._state.close()

    def _found(self, answer: Answer, asked: list[Participant]) -> bool:
        """Take the answer in; False where it is of another time, and all has to be said again."""
        now, was_degraded, epoch = self._clock(), self.degraded, self._epoch
        self.degraded, self.reason, self.members, self._epoch = False, "", answer.members, answer.epoch
        forgotten = epoch != answer.epoch or not answer.known
        if was_degraded:
            _log.info("state_shared", replicas=answer.members)
        if not was_degraded and not forgotten:
            for each, told in zip(asked, answer.answers, strict=True):
                each.hear(told, now)
            return True
        if forgotten and epoch:
            self.member = token_hex(8)  # an exchange of the old one that comes late must not count for this one
        for each in self._participants:
            each.together(now, fresh=forgotten)
        self._wanted.set()
        return False

    def _lost(self, why: str) -> None:
        now, was_degraded = self._clock(), self.degraded
        self.degraded, self.reason = True, why
        if not was_degraded:
            _log.warning("state_degraded", reason=why, share=f"1/{self.members}")
            for each in self._participants:
                each.alone(1 / self.members, now)

    def _on_news(self, program: str, member: str) -> None:
        if member != self.member and any(each.program == program for each in self._participants):
            self._wanted.set()
