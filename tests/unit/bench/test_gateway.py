"""How a gateway is started, found, measured and ended; the bare relay stands in for one."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from tests.bench import __main__ as command
from tests.bench.build import RigError, Tools, build, compiler
from tests.bench.cases import CASES, Case
from tests.bench.engine import Engine
from tests.bench.gateway import Gateway, baseline_command
from tests.bench.measure import Rig, run_case

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(compiler() is None, reason="no C compiler on this machine (cc, gcc, clang)")
SHORT = Case("short", "short", "chunk", None, ("--stream", "--tokens", "64", "--connections", "2"), 20, 20)


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Tools:
    return build(tmp_path_factory.mktemp("rig"))


def test_a_gateway_is_found_measured_and_ended(tools: Tools, tmp_path: Path) -> None:
    with Engine(tools) as engine:
        gateway = Gateway("relay", baseline_command(), engine.port, tmp_path, None)
        rig = Rig(tools, engine, tmp_path, None, True, lambda text: None)
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


def test_the_configuration_pays_for_the_log(tmp_path: Path) -> None:
    Gateway("gateway", ["x"], 4711, tmp_path, None)
    text = (tmp_path / "lexora_config.yaml").read_text()
    assert 'vllm: {url: "http://127.0.0.1:4711", max_concurrency: 1024}' in text
    assert 'logging: {level: "INFO", format: "json"}' in text
    assert "rate_limit: {enabled: false}" in text


def test_a_long_log_is_emptied(tmp_path: Path) -> None:
    gateway = Gateway("gateway", ["x"], 1, tmp_path, None)
    gateway.log.write_bytes(b"x" * (5 << 20))
    gateway.trim_log()
    assert gateway.log.stat().st_size == 0


def test_the_command_reports_and_fails_on_wrong_answers(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The bare relay does not tell the engine that a client left, and that is a wrong answer of a gateway."""
    monkeypatch.setattr(command, "CASES", (replace(CASES[0], count=50, quick_count=50),))
    monkeypatch.setattr("tests.bench.measure.WARM_UP", ())
    monkeypatch.setattr("tests.bench.measure.ABORT_LIMIT_S", 0.1)
    relay = f"{sys.executable} -m tests.bench.baseline {{engine}}"
    assert command.main(["--quick", "--no-pin", "--only", "unary-1", "--plain", "--command", relay]) == 1
    out = capsys.readouterr().out
    assert "unary-1.cpu_us_per_call=" in out
    assert "problems=1" in out
