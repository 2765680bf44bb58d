"""Whole answers that engines do not finish in time: what the engines did is charged, and they are not asked four times."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import load
from tests.support.load import chat
from tests.support.queueing import CHAT, MODEL, chats
from tests.support.servers import Gateway, Simulator, base_config

TOKENS_PER_MINUTE = 1200
OUTPUT = 200
SECONDS = 0.5  # of the 4 s that the answer takes
INPUT = 60  # at most


@pytest.fixture(scope="module")
def sims() -> Iterator[list[Simulator]]:
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(Simulator("--itl-ms", "20", model=MODEL)) for _ in range(2)]


@pytest.fixture(autouse=True)
def _clean(sims: list[Simulator]) -> None:
    for sim in sims:
        sim.clear()


@pytest.mark.parametrize("bound", ["timeout", "total_timeout"])
@pytest.mark.parametrize(("retry", "attempts"), [({}, 1), ({"on_timeout": True}, 2)], ids=["by default", "on_timeout"])
async def test_what_engines_did_is_charged(
    sims: list[Simulator], tmp_path: Path, bound: str, retry: dict[str, Any], attempts: int
) -> None:
    config = base_config(main={"urls": [sim.url for sim in sims], "models": [MODEL], bound: SECONDS})
    config["retry"] = {"max_retries": 1, "base_delay": 0.01} | retry
    config["rate_limit"] = {"enabled": True, "tokens_per_minute": TOKENS_PER_MINUTE}
    attempts = attempts if bound == "timeout" else 1  # the whole time is up
    with Gateway(config, tmp_path) as gateway:
        async with load.client(gateway.http) as one:
            late = await one.post(CHAT, chat(MODEL, OUTPUT, user="alice"))
            assert (late.status, late.error["code"]) == (504, "upstream_timeout")
            assert late.headers["x-lexora-attempts"] == str(attempts)
            assert sum(len(chats(sim)) for sim in sims) == attempts
            after = await one.post(CHAT, chat(MODEL, 1, user="alice"))
            assert after.status == 200
            charged = TOKENS_PER_MINUTE - int(after.headers["x-ratelimit-remaining-tokens"])
            # Twenty a second come back, and the second call is answered at once.
            assert attempts * OUTPUT - 60 < charged <= attempts * OUTPUT + (attempts + 1) * INPUT
