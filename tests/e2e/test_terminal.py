"""Names and texts that clients and engines chose reach no terminal as they are: not in the log, not in any command."""

import json
import os
import pty
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.engine import ScriptedEngine
from tests.support.raw_server import reply, stream
from tests.support.servers import LEXORA, Gateway, base_config, write_config
from tests.support.wire import wait_until

# It clears the screen (with C0 and with C1), sets a title, turns the direction, and forges a line of the log.
EVIL = "evil\x1b[2J\x9b2J\x1b]0;title\x07\u202egnp\u2028\x7f\r\n2026-01-01T00:00:00.000000Z [info     ] forged status=200"
# The log quotes what has blanks anyway; this has none.
EVIL_USER = "evil\x1b[2J\x9b2J\u202egnp\x7f"
UNSAFE = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


@pytest.fixture(scope="module")
def engine() -> Iterator[ScriptedEngine]:
    with ScriptedEngine("m", EVIL) as started:
        yield started


@pytest.fixture(scope="module", params=["console", "json"])
def gateway(
    engine: ScriptedEngine, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Gateway]:
    config = base_config(main={"url": engine.url})
    config["logging"] = {"format": request.param}
    with Gateway(config, tmp_path_factory.mktemp("gateway")) as process:
        yield process


def in_terminal(*arguments: str) -> str:
    """What a command writes to a terminal that knows no colours."""
    keyboard, terminal = pty.openpty()
    env = os.environ | {"TERM": "dumb", "COLUMNS": "300"}
    process = subprocess.Popen([*LEXORA, *arguments], stdin=subprocess.DEVNULL, stdout=terminal, stderr=terminal, env=env)
    os.close(terminal)
    seen = bytearray()
    try:
        while piece := os.read(keyboard, 65536):
            seen += piece
    except OSError:
        pass  # how Linux says that the other side is closed
    finally:
        os.close(keyboard)
        process.wait(20)
    return seen.decode().replace("\r\n", "\n")


def check(text: str, *, shown: str = r"evil\x1b[2J\x9b2J") -> None:
    assert shown in text
    assert not UNSAFE.findall(text)
    assert not any(line.startswith("2026-01-01T") for line in text.splitlines())


def refused() -> bytes:
    return reply(EVIL.encode(), status="400 Bad Request", content_type="text/plain")


def test_the_log_and_every_command_escape_what_others_chose(gateway: Gateway, engine: ScriptedEngine, tmp_path: Path) -> None:
    ask: dict[str, Any] = {"model": EVIL, "user": EVIL_USER, "messages": [{"role": "user", "content": "hi"}]}
    engine.answer = refused()
    with httpx.Client(base_url=gateway.http, timeout=10) as http:
        assert http.post("/v1/chat/completions", json=ask).status_code == 400
        engine.answer = reply(b"no json " + EVIL.encode())
        assert http.post("/v1/chat/completions", json=ask).status_code == 502
        assert http.post("/v1/chat/completions", json={**ask, "messages": EVIL, "stream": EVIL}).is_client_error
    calls = wait_until(lambda: [line for line in gateway.lines if "/v1/chat/completions" in line and "tenant" in line][1:], "2")
    at = ("--router", gateway.grpc)

    if calls[0].startswith("{"):
        check(gateway.output, shown=r"evil\u001b[2J\u009b2J")
        assert (json.loads(calls[0])["tenant"], json.loads(calls[0])["model"]) == (EVIL_USER, EVIL)
        return  # the commands are the same
    check(gateway.output, shown=r" tenant=evil\x1b[2J\x9b2J\u202egnp\x7f ")
    check(in_terminal("models", *at))
    check(in_terminal("status", *at))
    check(in_terminal("top", "--once", *at))
    check(in_terminal("explain", "--model", EVIL, "--user", EVIL, *at))
    listed = in_terminal("models", "--json", *at)
    check(listed, shown=r"evil\u001b[2J\u009b2J")
    assert EVIL in [model["id"] for model in json.loads(listed)["models"]]

    engine.answer = refused()
    check(in_terminal("chat", "--model", EVIL, "hi", *at))
    piece = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": EVIL}
    said = piece | {"choices": [{"index": 0, "delta": {"content": EVIL}, "finish_reason": "stop"}]}
    engine.answer = stream(f"data: {json.dumps(said)}\n\n".encode(), b"data: [DONE]\n\n")
    answer = in_terminal("chat", "--model", "m", "hi", *at)
    assert r"evil\x1b[2J\x9b2J\x1b]0;title\x07\u202egnp\u2028\x7f" in answer
    assert not UNSAFE.findall(answer)

    file = write_config({"vllm": {"url": engine.url}}, tmp_path)
    check(in_terminal("check", "--config", str(file)))
    bad = {"tenants": {EVIL: {"wieght": 1}}}
    gateway.config_file.write_text(gateway.config_file.read_text() + json.dumps(bad)[1:-1] + "\n")
    check(in_terminal("reload", *at))
