"""Errors of an engine's own making: another replica answers, the same one is not asked again, a refusal passes as it came."""

import json
from pathlib import Path

from tests.support.calls import Caller
from tests.support.loop_engine import LoopEngine
from tests.support.raw_server import closed_port, reply
from tests.support.servers import Gateway, base_config

WHOLE = reply(b'{"choices":[{"index":0,"message":{"role":"assistant","content":"foxes"},"finish_reason":"stop"}]}')
DEAD_CORE = b'{"error":{"message":"EngineCore encountered an issue.","type":"InternalServerError","param":null,"code":500}}'
CALLS = 40


def error(kind: str, code: object) -> bytes:
    return json.dumps({"error": {"message": "no", "type": kind, "param": None, "code": code}}).encode()


OWN = {
    "500 of a dead EngineCore": reply(DEAD_CORE, status="500 Internal Server Error"),
    "500 with a page": reply(b"<html>oops</html>", status="500 Internal Server Error", content_type="text/html"),
    "520": reply(b'{"error":"unknown"}', status="520 Unknown"),
    "599": reply(b"", status="599 Network Connect Timeout", content_type=""),
    "200 with a page": reply(b"<html>login</html>", content_type="text/html"),
    "200 with half of an answer": reply(b'{"choices":['),
}
BLAMES = {
    "type": error("BadRequestError", 500),
    "code": error("InternalServerError", 400),
    "fields at the top": b'{"object":"error","message":"no","type":"BadRequestError","param":null,"code":400}',
    "code in a word": error("server_error", "context_length_exceeded"),
}


async def test_who_answers_after_an_error_of_the_engine_s_own_making(tmp_path: Path) -> None:
    async with LoopEngine() as bad, LoopEngine() as good:
        good.answer(WHOLE)
        config = base_config(
            pair={"urls": [bad.url, good.url], "models": ["pair"]},
            solo={"url": bad.url, "models": ["solo"]},
            dead={"url": f"http://127.0.0.1:{closed_port()}", "models": ["dead"]},
        )
        config["health"] |= {"failure_threshold": 1_000_000, "min_calls": 1_000_000}
        with Gateway(config, tmp_path) as process:
            async with Caller(process.http) as caller:
                for name, script in OWN.items():
                    bad.answer(script)
                    await _other_replica_answers(name, caller, bad)
                    asked = len(bad.requests)
                    alone = await caller.call("solo")
                    assert (alone.told["attempts"], len(bad.requests) - asked) == ("1", 1), (
                        f"{name}: asked once, where it is alone"
                    )
                for name, body in BLAMES.items():
                    bad.answer(reply(body, status="500 Internal Server Error"))
                    await _refusal_passes(name, body, caller, bad)
                refused = await caller.call("dead")
                assert (refused.status, refused.code, refused.told["attempts"]) == (502, "upstream_unreachable", "2")
            blamed = process.metric("lexora_attempts_total", backend="pair", outcome="neutral")
            assert blamed >= len(BLAMES), "a refusal is no fault of the endpoint"


async def _other_replica_answers(name: str, caller: Caller, bad: LoopEngine) -> None:
    """Every one of many calls is served; those that the bad replica failed say that they took two attempts."""
    asked = len(bad.requests)
    answers = [await caller.call("pair") for _ in range(CALLS)]
    assert {answer.status for answer in answers} == {200}, name
    failed = len(bad.requests) - asked
    assert failed > 0, name
    assert sorted(answer.told["attempts"] for answer in answers) == ["1"] * (CALLS - failed) + ["2"] * failed, name


async def _refusal_passes(name: str, body: bytes, caller: Caller, bad: LoopEngine) -> None:
    """Until one call meets the bad replica: its answer is the client's, after one attempt."""
    asked = len(bad.requests)
    for _ in range(CALLS):
        answer = await caller.call("pair")
        assert answer.told["attempts"] == "1", name
        if len(bad.requests) > asked:
            assert (answer.status, answer.body) == (500, body), name
            return
    raise AssertionError(f"{name}: the bad replica was never asked")
