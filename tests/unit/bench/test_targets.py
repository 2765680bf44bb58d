"""How a gateway is started, found, measured and ended; the bare relay stands in for one."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from tests.bench import __main__ as command
from tests.bench.build import RigError, Tools, build, compiler
from tests.bench.cases import CASES, Case
from tests.bench.engine import Engine, load
from tests.bench.measure import Rig, run_case
from tests.bench.targets import CONFIG, PLAIN_PROXY, Gateway, peers, relay_command

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(compiler() is None, reason="no C compiler on this machine (cc, gcc, clang)")
SHORT = Case("short", "short", "chunk", None, ("--stream", "--tokens", "64", "--connections", "2"), 20, 20)


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Tools:
    return build(tmp_path_factory.mktemp("rig"))


def test_a_gateway_is_found_measured_and_ended(tools: Tools, tmp_path: Path) -> None:
    with Engine(tools) as engine:
        gateway = Gateway("relay", relay_command(), engine.port, tmp_path, None)
        rig = Rig(tools, engine, tmp_path, None, quick=True, thorough=False, say=lambda text: None)
        try:
            target = gateway.start()
            result = run_case(rig, target, SHORT)
        finally:
            gateway.stop()
        assert gateway.process
        assert gateway.process.poll() is not None
        assert 0 < gateway.startup_s < 60
        assert f"listening on 127.0.0.1:{target.port}" in gateway.tail()
        assert (result["ok"], result["chunks"], result["errors"]) == (20, 20 * 64, {})
        assert result["cpu_us"] is not None
        assert engine.stats()["streams"] == 20


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ([sys.executable, "-c", "import sys; sys.exit('no such option: {engine} {port}')"], r"ended with 1: .*no such"),
        (["/nowhere/lexora"], "could not start"),
    ],
)
def test_a_gateway_that_does_not_start_is_explained(tmp_path: Path, words: list[str], why: str) -> None:
    gateway = Gateway("gateway", words, 1, tmp_path, None)
    with pytest.raises(RigError, match=f"(?s){why}"):
        gateway.start()
    gateway.stop()


def test_the_log_of_a_call_is_part_of_its_cost() -> None:
    """Nothing that serves a call by default is switched off for the sake of a figure."""
    assert 'logging: {level: "INFO", format: "json"}' in CONFIG
    assert "rate_limit: {enabled: true" in CONFIG


def test_a_long_log_is_emptied(tmp_path: Path) -> None:
    gateway = Gateway("gateway", ["x"], 1, tmp_path, None)
    gateway.log.write_bytes(b"x" * (5 << 20))
    gateway.trim_log()
    assert gateway.log.stat().st_size == 0


@pytest.mark.skipif(PLAIN_PROXY not in peers(), reason="nginx is not installed")
def test_nginx_is_found_by_its_port(tools: Tools, tmp_path: Path) -> None:
    with Engine(tools) as engine, Gateway(PLAIN_PROXY, peers()[PLAIN_PROXY], engine.port, tmp_path, None) as target:
        assert load(tools, target.port, "--count", 10)["ok"] == 10


def test_the_command_reports_and_a_broken_bar_fails_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(command, "CASES", (replace(CASES[0], count=50, quick_count=50),))
    monkeypatch.setattr("tests.bench.measure.WARM_UP", ())
    monkeypatch.setattr("tests.bench.summary.IDLE_MIB", 1.0)
    relay, file = f"{sys.executable} -m tests.bench.relay {{engine}}", tmp_path / "results.json"
    options = ["--quick", "--no-pin", "--no-peers", "--only", "unary-1", "--plain", "--strict", "--json", str(file)]
    assert command.main([*options, "--command", relay]) == 1
    lines = dict(line.split("=", 1) for line in capsys.readouterr().out.splitlines())
    assert lines["idle.verdict"] == "over"
    assert lines["problems"] == "0"
    assert lines["aborts"].startswith("20 of 20")
    runs = json.loads(file.read_text())["rounds"][0]["cases"]["unary-1"]
    assert {name: run["ok"] for name, run in runs.items()} == {"direct": 50, "lexora": 50, "relay": 50}
