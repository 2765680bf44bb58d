"""A replica's link to the store: one exchange at a time carries what all its participants have to say."""

import asyncio
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from secrets import token_hex
from typing import Any, Protocol

import structlog
from msgspec import DecodeError, Struct, ValidationError, msgpack

from lexora_router.state.lag import LagTolerantTimeout
from lexora_router.state.port import MAX_BATCH_BYTES, Answer, Ask, Batch, SharedState, StateUnavailable
from lexora_router.state.program import Programs
from lexora_router.state.tally import Tally

TICK_SECONDS = 0.1
"""From one exchange to the next, where nothing waits for one."""
IDLE_SECONDS = 0.5
"""The same where no participant had anything to say: it renews the membership."""
TTL_SECONDS = 3.0
"""A member that has been silent for so long is given up: its slots and credit are free again."""
CALL_GAP_SECONDS = 0.002
"""Between the beginnings of two exchanges at least: calls that wait share one."""
NEWS_GAP_SECONDS = 0.01
"""The same where no call waits: a storm of news makes no storm of exchanges."""
CROWD, TICKING_CROWD = 10, 100
"""With more replicas these gaps, and the ticks, are longer in proportion: the store has no more exchanges then."""
OPEN_SECONDS = 1.0
"""For a connection, with TLS and sign-in; no call waits for it."""
BACKOFF_SECONDS = (0.05, 1.0)
"""Before the first and between later attempts to reach a lost store."""
STEADY_SECONDS = 5.0
"""A store that was lost again sooner is tried again later."""

_log = structlog.get_logger("lexora.state")


class Participant(Protocol):
    """What of a replica is shared. Every method is synchronous and quick; `now` is the replica's monotonic clock, in seconds.

    `StateLink.join` calls `alone` or `together` at once. What `ask` gives is at most half of MAX_BATCH_BYTES, packed.
    """

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
    `timeout` is in seconds; `clock` is monotonic. `replicas` is what to divide by before the store has said how many live.
    """

    def __init__(
        self,
        state: SharedState,
        programs: Programs,
        *,
        timeout: float,
        clock: Callable[[], float],
        replicas: int = 1,
        tick: float = TICK_SECONDS,
        ttl: float = TTL_SECONDS,
        spread: Callable[[], float] = random.random,
    ) -> None:
        self.member = token_hex(8)
        self.members = replicas  # that live, as last heard
        self.degraded = True
        self.reason = "the store has not answered yet"
        self.tally = Tally()
        self._state = state
        self._decoders = {name: msgpack.Decoder(kind.gives) for name, kind in programs.items()}
        self._timeout = timeout
        self._clock = clock
        self._tick = tick
        self._ttl = ttl
        self._spread = spread
        self._number = 0
        self._joined = False  # the store has had this member
        self._first = 0  # of the participants: the one that asks first, where not all fit
        self._participants: list[Participant] = []
        self._wake = asyncio.Event()
        self._wanted = False
        self._waiting: asyncio.Future[bool] | None = None
        self.begun = -1e9  # the last exchange, on the clock
        self._next_tick = tick
        self._found_at = -1e9
        self._failures = 0  # in a row
        self._tried = asyncio.Event()  # the store, once
        self._warned = False  # the log has it that the store is lost
        self._ending = False
        self._task: asyncio.Task[None] | None = None
        state.on_news(self._on_news)

    # What participants use.

    def join(self, participant: Participant) -> None:
        """Exchange for this one, too."""
        self._participants.append(participant)
        now = self._clock()
        if self.degraded:
            participant.alone(1 / self.members, now)
        else:
            participant.together(now, fresh=True)
            self.nudge()

    def nudge(self) -> None:
        """Let the next exchange be soon."""
        self._wanted = True
        self._wake.set()

    async def exchanged(self) -> bool:
        """Wait for an exchange that begins from here on, `state.timeout` at most; False: the store is out of reach.

        Calls that wait at the same time share one.
        """
        if self.degraded:
            return False
        if self._waiting is None or self._waiting.done():
            loop = asyncio.get_running_loop()
            self._waiting = waiting = loop.create_future()
            overdue = loop.call_later(self._timeout, _settle, waiting, False)
            waiting.add_done_callback(lambda _: overdue.cancel())
            self._wake.set()
        return await asyncio.shield(self._waiting)

    # What the process uses.

    async def start(self) -> None:
        """Begin; the store has been tried once after this, which takes `state.timeout` at most."""
        self._task = asyncio.create_task(self._run(), name="lexora-state")
        try:
            async with asyncio.timeout(self._timeout):
                await self._tried.wait()
        except TimeoutError:
            pass  # it is reached later

    async def leave(self) -> None:
        """Say the last totals, and give everything back. The store may be out of reach, and does so by itself then."""
        await self._end()
        if not self.degraded:
            await self._exchange()
        if self._waiting is not None:
            _settle(self._waiting, False)
        if not self.degraded:
            try:
                async with asyncio.timeout(self._timeout):
                    await self._state.leave(self.member)
            except (StateUnavailable, TimeoutError):
                pass
        await self._state.close()

    async def _end(self) -> None:
        """Let an exchange under way end: cut off, it would take its connection with it."""
        if self._task is None:
            return
        self._ending = True
        self._wake.set()
        if not self.degraded:
            await asyncio.wait({self._task}, timeout=2 * self._timeout)
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    # One task does all that follows.

    async def _run(self) -> None:
        while not self._ending:
            if self.degraded:
                await asyncio.sleep(self._backoff())
            else:
                await self._due()
            try:
                await self.exchange()
            except Exception:  # the boundary: a bug, here or in the client, must not leave calls waiting for ever
                _log.exception("bug", work="state")
                self._lost("internal error; the log has it")

    async def exchange(self) -> None:
        """One exchange now, or one attempt to reach a lost store."""
        await (self._return() if self.degraded else self._exchange())

    async def _due(self) -> None:
        """Wait for the time of the next exchange."""
        while True:
            left = self.begun + self._gap() - self._clock()
            if left <= 0 or self._ending:
                return
            self._wake.clear()
            try:
                async with asyncio.timeout(left):
                    await self._wake.wait()
            except TimeoutError:
                pass

    def _gap(self) -> float:
        """Seconds from the last exchange to the next one."""
        crowd = max(1.0, self.members / CROWD)
        if self._waiting:
            return min(CALL_GAP_SECONDS * crowd, self._timeout / 4)
        if self._wanted:
            return NEWS_GAP_SECONDS * crowd
        return self._next_tick * max(1.0, self.members / TICKING_CROWD)

    def _backoff(self) -> float:
        """Seconds to wait before the next attempt, with jitter: replicas that lost the store together do not come together."""
        first, most = BACKOFF_SECONDS
        if self._failures == 0:
            return 0.0
        return min(first * 2.0 ** min(self._failures - 1, 16), most) * (1 - self._spread() / 2)

    async def _return(self) -> None:
        """Try to reach the store, and to be a member of it again."""
        try:
            await self._open()
            known = self._joined
            found = await self._say()
            if not found.known:
                found, known = await self._join(), False
        except StateUnavailable as error:
            self._lost(str(error))
        else:
            self._found(found, fresh=not known)
        finally:
            self._tried.set()

    async def _open(self) -> None:
        try:
            async with asyncio.timeout(OPEN_SECONDS):
                await self._state.open()
        except TimeoutError:
            raise StateUnavailable(_silent(OPEN_SECONDS)) from None

    async def _exchange(self) -> None:
        """With a store that was there at the last one."""
        waiting, self._waiting = self._waiting, None
        self._wanted, self.begun = False, self._clock()
        asked = self._asked()
        self._next_tick = self._tick if asked else max(self._tick, IDLE_SECONDS)
        heard = False
        try:
            answer = await self._say(tuple(ask for _, ask in asked))
            if answer.known:
                self._hear(asked, answer)
                heard = True
            else:
                self._found(await self._join(), fresh=True)
        except StateUnavailable as error:
            self._lost(str(error))
        finally:
            self._release(waiting, heard=heard)

    def _asked(self) -> list[tuple[Participant, Ask]]:
        """What the participants have to say, as much as fits; the others say it next."""
        asked, room, now = list[tuple[Participant, Ask]](), MAX_BATCH_BYTES, self._clock()
        count = len(self._participants)
        for place in range(self._first, self._first + count):
            each = self._participants[place % count]
            if asked and room < MAX_BATCH_BYTES / 2:  # before it is asked: a participant's totals move on when it is
                self._first, self._wanted = place % count, True
                break
            request = None
            with _survived(each):
                request = each.ask(now)
            if request is not None:
                packed = msgpack.encode(request)
                room -= len(packed)
                asked.append((each, Ask(each.program, packed)))
        return asked

    async def _say(self, asks: tuple[Ask, ...] = (), *, join: bool = False) -> Answer:
        """One round trip. Raises StateUnavailable."""
        self._number += 1
        began = self._clock()
        try:
            async with LagTolerantTimeout(self._timeout, self._clock):
                answer = await self._state.exchange(Batch(self.member, self._ttl, self._number, join or not self._joined, asks))
        except StateUnavailable:
            self.tally.failed += 1
            raise
        except TimeoutError:
            self.tally.failed += 1
            raise StateUnavailable(_silent(self._timeout)) from None
        self.tally.add(self._clock() - began, asks)
        self._joined = True
        return answer

    async def _join(self) -> Answer:
        """Become another member, one that an exchange of the old one that comes late does not count for."""
        self.member = token_hex(8)
        return await self._say(join=True)

    def _hear(self, asked: list[tuple[Participant, Ask]], answer: Answer) -> None:
        self.members, now = max(answer.members, 1), self._clock()
        for (each, ask), packed in zip(asked, answer.answers, strict=True):
            try:
                said = self._decoders[ask.program].decode(packed)
            except (DecodeError, ValidationError) as error:
                raise StateUnavailable(f"the answer of {ask.program} cannot be read: {error}") from error
            with _survived(each):
                each.hear(said, now)

    def _found(self, answer: Answer, *, fresh: bool) -> None:
        now = self._clock()
        self.members = max(answer.members, 1)
        if self.degraded:
            self._found_at = now
            self.degraded, self.reason, self._warned = False, "", False
            _log.info("state_shared", store=self._state.where, replicas=self.members)
        for each in self._participants:
            with _survived(each):
                each.together(now, fresh=fresh)
        self._wanted = True

    def _lost(self, why: str) -> None:
        now, was_degraded = self._clock(), self.degraded
        steady = not was_degraded and now - self._found_at >= STEADY_SECONDS
        self._failures = 1 if steady else self._failures + 1
        self.degraded, self.reason = True, why
        self._release(self._waiting, heard=False)
        self._waiting = None
        if not self._warned:
            self._warned = True
            _log.warning("state_degraded", store=self._state.where, reason=why, share=f"1/{self.members}")
        if was_degraded:
            return
        for each in self._participants:
            with _survived(each):
                each.alone(1 / self.members, now)

    def _release(self, waiting: asyncio.Future[bool] | None, *, heard: bool) -> None:
        """Let calls go on that wait for an exchange; where it was not heard and the store is there, they wait for the next."""
        if waiting is None or waiting.done():
            return
        if heard or self.degraded or self._waiting is not None or self._ending:
            waiting.set_result(heard)
        else:
            self._waiting = waiting

    def _on_news(self, program: str, member: str) -> None:
        if member != self.member and any(each.program == program for each in self._participants):
            self.nudge()


@contextmanager
def _survived(participant: Participant) -> Iterator[None]:
    """Log what goes wrong inside: a bug of one participant must not end the exchanges of all."""
    try:
        yield
    except Exception:
        _log.exception("bug", program=participant.program)


def _silent(seconds: float) -> str:
    return f"no answer within {seconds:g} s"


def _settle(waiting: "asyncio.Future[bool]", heard: bool) -> None:
    if not waiting.done():
        waiting.set_result(heard)
