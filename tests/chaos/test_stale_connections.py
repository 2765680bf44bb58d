"""An engine that ends a kept connection just as it is used: the call is sent again, costs no retry, and is counted."""

import asyncio
from pathlib import Path

import pytest

from tests.support.calls import Caller
from tests.support.loop_engine import LoopEngine
from tests.support.raw_server import Do, RawRequest, Step, reply
from tests.support.servers import Gateway, base_config

WHOLE = reply(b'{"choices":[{"index":0,"message":{"role":"assistant","content":"foxes"},"finish_reason":"stop"}]}')
CALLS = 400
AT_ONCE = 8


class Restless(LoopEngine):
    """Answers, and ends the connection when its second request comes: every kept connection is a stale one."""

    def __init__(self, end: Step) -> None:
        super().__init__()
        self.end = end
        self.ended = 0

    def script_for(self, request: RawRequest, served: int) -> tuple[Step, ...]:
        if request.method == "GET" or served % 2 == 0:
            return self.script_of(request)
        self.requests.append(request)
        self.ended += 1
        return (self.end, Do.CLOSE)


IDLE_TOO_LONG = reply(b"", status="408 Request Timeout", headers="connection: close\r\n")


@pytest.mark.parametrize("end", [Do.RESET, Do.CLOSE, IDLE_TOO_LONG])
async def test_no_call_fails_and_none_costs_a_retry(end: Step, tmp_path: Path) -> None:
    async with Restless(end) as engine:
        engine.answer(WHOLE)
        config = base_config(main={"url": engine.url, "models": ["m"], "max_concurrency": AT_ONCE})
        config["retry"] = {"max_retries": 0}
        with Gateway(config, tmp_path) as process:
            async with Caller(process.http) as caller:
                room = asyncio.Semaphore(2 * AT_ONCE)

                async def one() -> tuple[int, str]:
                    async with room:
                        answer = await caller.call("m")
                        return answer.status, answer.told["attempts"]

                answers = await asyncio.gather(*(one() for _ in range(CALLS)))
            assert {status for status, _ in answers} == {200}
            again = sum(attempts == "2" for _, attempts in answers)
            assert {attempts for _, attempts in answers} == {"1", "2"}
            assert again == engine.ended > CALLS / 4
            assert process.metric("lexora_attempts_total", backend="main") == CALLS + again == len(engine.requests)
            assert process.metric("lexora_attempts_total", backend="main", outcome="neutral") == again
            assert process.metric("lexora_attempts_total", backend="main", outcome="fault") == 0
