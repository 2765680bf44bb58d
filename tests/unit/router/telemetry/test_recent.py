import asyncio

from tests.unit.router.support import CHAT, make_call

from lexora_router.errors import UpstreamBroken
from lexora_router.telemetry.account import CallRecord
from lexora_router.telemetry.recent import KEPT, MAX_MODEL_LENGTH, RecentCalls


def test_the_last_calls_are_told_the_latest_first() -> None:
    recent = RecentCalls()
    for number in range(KEPT + 50):
        recent.end(CallRecord(make_call(id=f"call-{number}"), 200, None, "m"))
    told = recent.last()
    assert [call.id for call in told[:3]] == ["call-249", "call-248", "call-247"]
    assert (len(told), told[-1].id) == (KEPT, "call-50")
    assert [call.id for call in recent.last(told[-3].number)] == ["call-51", "call-50"]


def test_how_a_call_ended() -> None:
    recent = RecentCalls()
    recent.end(CallRecord(make_call(), 200, None, "m"))
    recent.end(CallRecord(make_call(), 502, UpstreamBroken("x"), "m"))
    recent.end(CallRecord(make_call(path=""), 499, asyncio.CancelledError(), "m"))
    recent.end(CallRecord(make_call(), 500, ZeroDivisionError(), "m"))
    told = [(call.path, call.status, call.error) for call in reversed(recent.last())]
    assert told == [(CHAT, 200, ""), (CHAT, 502, "UPSTREAM_BROKEN"), ("other", 499, ""), (CHAT, 500, "INTERNAL")]


def test_neither_contents_nor_who_asked_are_kept() -> None:
    recent = RecentCalls()
    recent.end(CallRecord(make_call(body=b"secret", user="somebody", model="m" * 5000), 200, None, "m"))
    (call,) = recent.last()
    assert call.model == "m" * MAX_MODEL_LENGTH
    assert "secret" not in repr(call)
    assert "somebody" not in repr(call)
