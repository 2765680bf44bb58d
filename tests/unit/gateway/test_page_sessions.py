import asyncio
from collections.abc import Awaitable, Callable

import pytest

from lexora_gateway import page_sessions as sessions_module
from lexora_gateway.page_sessions import IDLE_SECONDS, LONGEST_SECONDS, MAX_OF_ONE, Sessions


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_session_ends_when_it_is_not_used() -> None:
    clock = Clock()
    sessions = Sessions(clock)
    word = sessions.open("key")
    clock.now += IDLE_SECONDS - 1
    assert sessions.credential(word) == "key"
    clock.now += IDLE_SECONDS - 1
    assert sessions.credential(word) == "key"
    clock.now += IDLE_SECONDS
    assert sessions.credential(word) == ""
    assert len(sessions) == 0


def test_a_session_ends_however_much_it_is_used() -> None:
    clock = Clock()
    sessions = Sessions(clock)
    word = sessions.open("key")
    while clock.now + 60 < LONGEST_SECONDS:
        clock.now += 60
        assert sessions.credential(word) == "key"
    clock.now += 60
    assert sessions.credential(word) == ""


def test_one_key_has_a_few_sessions_and_pushes_no_other_out() -> None:
    sessions = Sessions(Clock())
    other = sessions.open("other")
    words = [sessions.open("key") for _ in range(100)]
    assert sessions.credential(other) == "other"
    assert [sessions.credential(word) for word in words] == [""] * (100 - MAX_OF_ONE) + ["key"] * MAX_OF_ONE


def test_all_sessions_have_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions_module, "MAX_SESSIONS", 3)
    sessions = Sessions(Clock())
    words = [sessions.open(str(number)) for number in range(4)]
    assert sessions.credential(words[1]) == "1"  # used last: it stays
    words.append(sessions.open("4"))
    assert [bool(sessions.credential(word)) for word in words] == [False, True, False, True, True]


def test_a_word_is_random_and_found_as_a_whole_and_no_key_is_shown() -> None:
    sessions = Sessions(Clock())
    words = {sessions.open(f"key-{number}") for number in range(100)}
    assert len(words) == 100
    assert {len(word) for word in words} == {43}
    assert not any(sessions.credential(word[:-1]) or sessions.credential(word + "x") for word in words)
    assert "key-" not in repr(sessions._sessions)
    assert not any(word in repr(sessions._sessions) for word in words)
    word = words.pop()
    sessions.close(word)
    assert sessions.credential(word) == sessions.credential("") == ""


async def test_processes_of_one_gateway_have_the_same_sessions() -> None:
    clock = Clock()
    clock.now = 1000.0
    here, there = Sessions(clock), Sessions(clock)

    def to(other: Sessions) -> Callable[[bytes], Awaitable[object]]:
        def send(news: bytes) -> Awaitable[object]:
            other.hear(news)
            return asyncio.get_running_loop().create_task(asyncio.sleep(0))

        return send

    here.send, there.send = to(there), to(here)
    word = here.open("key")
    assert there.credential(word) == ""
    await here.announce(word)
    for _ in range(100):  # used here alone
        clock.now += IDLE_SECONDS / 10
        assert here.credential(word) == "key"
    assert there.credential(word) == "key"
    late = Sessions(clock)
    for news in there.news():
        late.hear(news)
    assert late.credential(word) == "key"
    there.close(word)
    await there.announce(word)
    assert here.credential(word) == ""
