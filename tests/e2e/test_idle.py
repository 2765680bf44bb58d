"""`lexora idle`, the hook before a stop: it ends when there have been no calls for a while, and complains when there were."""

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.process import Process
from tests.support.servers import LEXORA, Gateway, Simulator, base_config

STREAM = {
    "model": "qwen3-32b",
    "messages": [{"role": "user", "content": "Hi"}],
    "stream": True,
    "max_tokens": 3000,
    "ignore_eos": True,
}
QUIET = 0.5


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    folder: Path = tmp_path_factory.mktemp("gateway")
    with Simulator("--itl-ms", "20") as engine, Gateway(base_config(main={"url": engine.url}), folder) as gateway:
        yield gateway


def idle(router: str, *options: str) -> list[str]:
    return [*LEXORA, "idle", "--router", router, *options]


def run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_it_waits_for_calls_under_way_and_then_for_quiet(gateway: Gateway) -> None:
    with httpx.stream("POST", f"{gateway.http}/v1/chat/completions", json=STREAM, timeout=30) as answer:
        pieces = answer.iter_raw()  # when it is collected the connection is closed
        next(pieces)
        late = run(idle(gateway.grpc, "--quiet", "0", "--at-most", "0.3"))
        assert (late.returncode, late.stderr) == (1, "lexora: not idle after 0.3 seconds; calls under way or waiting: 1\n")
        waiting = Process(idle(gateway.grpc, "--quiet", str(QUIET), "--at-most", "30"))
        with waiting:
            with pytest.raises(subprocess.TimeoutExpired):
                waiting.wait(2 * QUIET)
            left = time.monotonic()
            answer.close()
            assert waiting.wait() == 0
            assert time.monotonic() - left >= QUIET
    assert waiting.output == f"no calls for {QUIET:g} seconds\n"


def test_a_router_that_does_not_answer_is_not_waited_for() -> None:
    done = run(idle("127.0.0.1:1"))
    assert done.returncode == 1
    assert "no router answers at 127.0.0.1:1" in done.stderr
