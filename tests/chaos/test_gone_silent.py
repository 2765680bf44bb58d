"""An engine that freezes while its /health is fine: unary calls find it out by what is usual, and go elsewhere."""

import asyncio
from pathlib import Path

from tests.support.calls import Caller
from tests.support.servers import Gateway, Simulator, base_config

MODEL = "qwen3-32b"
FIRST_TOKEN = 8.0


async def test_unary_calls_leave_a_frozen_engine_before_their_timeout(tmp_path: Path) -> None:
    with Simulator(model=MODEL) as frozen, Simulator(model=MODEL) as well:
        main = {"urls": [frozen.url, well.url], "models": [MODEL], "first_token_timeout": FIRST_TOKEN}
        with Gateway(base_config(main=main), tmp_path) as process:
            async with Caller(process.http) as caller:
                for _ in range(10):
                    assert {answer.status for answer in await caller.many(4, MODEL)} == {200}
                frozen.fault("freeze_after=0")
                answers = await caller.many(8, MODEL)
                assert {answer.status for answer in answers} == {200}
                late = [answer for answer in answers if answer.told["attempts"] == "2"]
                assert len(late) >= 2
                assert all(answer.seconds < FIRST_TOKEN for answer in late), "it is the kind's own bound, not the timeout"
                asked = len(frozen.posts())
                assert {answer.told["attempts"] for answer in await caller.many(8, MODEL)} == {"1"}
                assert len(frozen.posts()) == asked, "new calls go elsewhere"
                await asyncio.to_thread(process.wait_for, "call.*attempts=2")
