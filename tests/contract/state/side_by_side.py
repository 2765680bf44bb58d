"""The harness of the programs' contract: the same exchanges at the store in memory and at a real Valkey, and the same answers.

`check(server, programs, requests)` makes them up; `requests` has a strategy for each program's requests. Time is the test's: it
moves in eighths of a second, which both sides count without rounding, and goes back now and then. Answers are the same to 1e-6.
"""

import math
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import valkey
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from msgspec import Struct, msgpack, to_builtins

from lexora_router.state.memory import Store
from lexora_router.state.port import Answer, Ask, Batch, StateUnavailable
from lexora_router.state.program import Programs
from lexora_router.state.script import text
from tests.support.valkey import ValkeyProcess

TTL = 3.0
_START = 1_700_000_000_000_000  # microseconds
# TIME and PUBLISH are the test's.
_ENTRY = """
return run(KEYS, ARGV, function(command, ...)
  if command == 'TIME' then return redis.call('MGET', 'test:seconds', 'test:micros') end
  if command == 'PUBLISH' then return redis.call('SET', 'test:news', select(2, ...)) end
  return redis.call(command, ...)
end)
"""


class SideBySide:
    """Both stores, empty. `exchange` and the others act on both, and assert that they do the same."""

    def __init__(self, server: ValkeyProcess, programs: Programs) -> None:
        self._programs = programs
        self._valkey: Any = valkey.Valkey(host="127.0.0.1", port=server.port)
        self._valkey.flushdb()
        self._sha = self._valkey.script_load(f"#!lua\n{text(programs)}{_ENTRY}")
        self._memory = Store(programs)
        self._micros = _START
        self._numbers: dict[str, int] = {}
        self.advance(0)

    def __enter__(self) -> "SideBySide":
        return self

    def __exit__(self, *_: object) -> None:
        self._valkey.close()

    @property
    def now(self) -> float:
        return self._micros // 1_000_000 + self._micros % 1_000_000 / 1e6

    def advance(self, eighths: int) -> None:
        """Let so many eighths of a second pass; fewer than none: a clock that is put back."""
        self._micros += eighths * 125_000
        self._valkey.mset({"test:seconds": self._micros // 1_000_000, "test:micros": self._micros % 1_000_000})

    def join(self, member: str) -> Answer:
        """Begin a membership."""
        return self.exchange(member, join=True)

    def exchange(self, member: str, *requests: tuple[str, Struct], join: bool = False, number: int | None = None) -> Answer:
        """One exchange at both; the answers are decoded, and asserted to be the same. StateUnavailable where it came late."""
        last = self._numbers.get(member, 0)
        number = last + 1 if number is None else number
        self._numbers[member] = max(last, number)
        asks = tuple(Ask(name, msgpack.encode(request)) for name, request in requests)
        batch = Batch(member, TTL, number, join, asks)
        try:
            here, news = self._memory.exchange(batch, self.now)
        except StateUnavailable:
            assert self._at_valkey(batch)[0] == -1
            raise
        known, members, *packed = self._at_valkey(batch)
        heard = set((self._valkey.getdel("test:news") or b"").decode().split()[1:])
        assert (bool(known), members, len(packed), heard) == (here.known, here.members, len(here.answers), news)
        answers = []
        for ask, ours, theirs in zip(asks, here.answers, packed, strict=False):
            gives = self._programs[ask.program].gives
            answer, other = msgpack.decode(ours, type=gives), msgpack.decode(theirs, type=gives)
            assert same(to_builtins(answer), to_builtins(other)), f"{ask.program}: {answer} in memory, {other} in Valkey"
            answers.append(answer)
        return Answer(here.known, here.members, tuple(answers))

    def leave(self, member: str) -> None:
        """End a membership."""
        self._memory.leave(member)
        self._valkey.evalsha(self._sha, 1, _KEY, "leave", member, *self._programs)
        assert self._valkey.getdel("test:news").decode().split() == [member, *self._programs]

    def evict(self, *names: str) -> None:
        """Let Valkey lose these keys, as it does where it is full and may."""
        assert self._valkey.delete(*(f"{_BASE}{name}" for name in names)) == len(names)

    def at_valkey(self, member: str, *requests: tuple[str, Struct]) -> list[Any]:
        """One exchange at Valkey alone; the answers."""
        self._numbers[member] += 1
        asks = tuple(Ask(name, msgpack.encode(request)) for name, request in requests)
        known, _, *packed = self._at_valkey(Batch(member, TTL, self._numbers[member], False, asks))
        assert known == 1
        return [msgpack.decode(each, type=self._programs[name].gives) for (name, _), each in zip(asks, packed, strict=True)]

    def _at_valkey(self, batch: Batch) -> Any:
        said = [part for ask in batch.asks for part in ask]
        join = "1" if batch.join else "0"
        return self._valkey.evalsha(self._sha, 1, _KEY, "exchange", batch.member, batch.ttl, batch.number, join, "e", *said)


_BASE = "{lexora:test}:v1:"
_KEY = f"{_BASE}members"


def same(one: Any, other: Any) -> bool:
    """Whether two values are equal, numbers to 1e-6."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(each, other[name]) for name, each in one.items())
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, int | float) and isinstance(other, int | float):
        return math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-6)
    return bool(one == other)


def check(
    server: ValkeyProcess, programs: Programs, requests: Mapping[str, SearchStrategy[Struct]], *, examples: int = 100
) -> None:
    """Made-up exchanges of up to four members."""
    members = st.sampled_from("abcd")
    asks = st.lists(
        st.one_of([st.tuples(st.just(name), each) for name, each in requests.items()]), max_size=3, unique_by=lambda ask: ask[0]
    )
    steps = st.one_of(
        st.tuples(st.just("exchange"), members, asks),
        st.tuples(st.just("exchange"), members, asks),
        st.tuples(st.just("exchange"), members, asks),
        st.tuples(st.just("late"), members, asks),
        st.tuples(st.just("leave"), members),
        st.tuples(st.just("advance"), st.integers(0, 8)),
        st.tuples(st.just("advance"), st.sampled_from([-80, 20, 30, 800])),
    )

    @settings(max_examples=examples)
    @given(st.lists(steps, max_size=40))
    def run(sequence: list[Any]) -> None:
        with SideBySide(server, programs) as both:
            for what, *rest in sequence:
                if what == "advance":
                    both.advance(*rest)
                elif what == "leave":
                    both.leave(*rest)
                elif what == "late":
                    with suppress(StateUnavailable):
                        both.exchange(rest[0], *rest[1], number=1)
                else:
                    answer = both.exchange(rest[0], *rest[1])
                    if not answer.known:
                        both.join(rest[0])

    run()
