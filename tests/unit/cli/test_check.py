import json
import re
from pathlib import Path

import pytest
from click.testing import Result
from tests.support.issuer import Issuer
from tests.support.valkey import ValkeyProcess
from typer.testing import CliRunner

from lexora_cli import probe
from lexora_cli.diagnosis import Trouble
from lexora_cli.main import app
from lexora_cli.probe import Finding
from lexora_router.config import Config

BROKEN = "server: {prot: 8001, host: ''}\nrouting:\n  backends:\n    main: {url: 'ftp://x', tiemout: 3}\n"


@pytest.fixture(autouse=True)
def nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No file and no variable of the machine has a say."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("lexora_router.config.load.SEARCH", ())


@pytest.fixture
def findings(monkeypatch: pytest.MonkeyPatch) -> list[Finding]:
    found: list[Finding] = []

    async def probe_all(config: Config, discovered: object) -> list[Finding]:
        return found

    monkeypatch.setattr(probe, "probe_all", probe_all)
    return found


def test_every_problem_of_a_file_is_told_and_the_exit_code_is_1(tmp_path: Path) -> None:
    file = tmp_path / "broken.yaml"
    file.write_text(BROKEN)
    result = CliRunner().invoke(app, ["check", "--config", str(file)])
    assert (result.exit_code, result.stdout) == (1, "")
    headline, *problems = result.stderr.splitlines()
    assert headline == "lexora: the configuration cannot be used, 4 problems:"
    assert len(problems) == 4
    assert any(f"{file}:1: server.prot: unknown key" in line for line in problems)
    assert any("routing.backends.main.tiemout: unknown key, did you mean timeout?" in line for line in problems)


def test_problems_as_json(tmp_path: Path) -> None:
    file = tmp_path / "broken.yaml"
    file.write_text(BROKEN)
    result = CliRunner().invoke(app, ["check", "--config", str(file), "--json"])
    assert result.exit_code == 1
    report = json.loads(result.stdout)
    assert report["ok"] is False
    assert len(report["problems"]) == 4


def test_the_configuration_in_force_is_shown_with_secrets_masked() -> None:
    env = {"LEXORA_VLLM__API_KEY": "sk-hidden", "LEXORA_SERVER__PORT": "9001", "LEXORA_RETRY__MAX_RETRIES": "2"}
    assert "port: 9001" not in CliRunner().invoke(app, ["check", "--no-probe"], env=env).stdout
    result = CliRunner().invoke(app, ["check", "--no-probe", "--all"], env=env)
    assert result.exit_code == 0, result.output
    assert "port: 9001" in result.stdout
    assert "api_key: '********'" in result.stdout
    assert "sk-hidden" not in result.output


def test_warnings_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    result = CliRunner().invoke(app, ["check", "--no-probe"], env={"LEXORA_VLLM__API_KEY_ENV": "NO_SUCH_KEY"})
    assert result.exit_code == 0
    assert "warning: " in result.stderr
    assert "NO_SUCH_KEY is not set" in result.stderr.replace("\n", " ")


def test_a_backend_that_answers(findings: list[Finding]) -> None:
    findings.append(Finding("vllm", "http://gpu1:8000", healthy=True, latency_ms=2.5, models=["a", "b"], missing=["c"]))
    result = CliRunner().invoke(app, ["check"])
    assert result.exit_code == 0
    assert "answers vllm http://gpu1:8000: 2.5 ms, models: a, b" in result.stdout
    assert "not listed by the engine: c" in result.stdout


def test_names_from_engines_do_not_move_the_cursor(findings: list[Finding]) -> None:
    findings.append(Finding("vllm", "http://gpu1:8000", healthy=True, latency_ms=1, models=["a\x1b[2J[red]b"]))
    result = CliRunner().invoke(app, ["check"])
    assert "\x1b" not in result.stdout
    assert r"a\x1b[2J[red]b" in result.stdout


def test_the_report_as_json(findings: list[Finding]) -> None:
    findings.append(Finding("vllm", "http://gpu1:8000", trouble=Trouble("refused", "start it")))
    result = CliRunner().invoke(app, ["check", "--json"], env={"LEXORA_VLLM__API_KEY": "sk-hidden"})
    assert result.exit_code == 2
    report = json.loads(result.stdout)
    assert (report["ok"], report["file"]) == (False, None)
    assert report["endpoints"][0]["trouble"] == {"problem": "refused", "advice": "start it"}
    assert report["config"]["vllm"]["api_key"] == "********"


def test_the_store_of_several_replicas_is_tried(findings: list[Finding], tmp_path: Path) -> None:
    findings.append(Finding("vllm", "http://gpu1:8000", healthy=True, latency_ms=1.0, models=["m"]))
    with ValkeyProcess(tmp_path) as server:

        def checked(url: str, *options: str, timeout: float = 1.0) -> Result:
            env = {"LEXORA_STATE__URL": url, "LEXORA_STATE__TIMEOUT": str(timeout)}
            return CliRunner().invoke(app, ["check", *options], env=env)

        well = checked(server.url)
        assert well.exit_code == 0, well.output
        assert re.search(rf"answers state valkey://127.0.0.1:{server.port}: [0-9.]+ ms, Valkey [0-9.]+\n", well.stdout)
        assert server.command("HLEN", "{lexora:lexora}:v1:members") == 0  # it is no replica
        refused = checked(f"valkey://joe:top-secret@127.0.0.1:{server.port}", "--all")
        assert refused.exit_code == 2
        assert "the store refuses the user or the password of state.url" in refused.stdout
        assert "top-secret" not in refused.output
        server.command("ACL", "SETUSER", "reader", "on", "nopass", "~*", "&*", "+@all", "-publish")
        assert "ACL" in checked(f"valkey://reader:x@127.0.0.1:{server.port}").stdout
        report = json.loads(checked(server.url, "--json").stdout)
        assert report["stores"][0]["problem"] == ""
    gone = checked(server.url)
    assert (gone.exit_code, "the store cannot be reached: Connection refused" in gone.stdout) == (2, True)


def test_issuers_of_tokens_are_asked_for_their_keys(findings: list[Finding], tmp_path: Path) -> None:
    findings.append(Finding("vllm", "http://gpu1:8000", healthy=True, latency_ms=1.0, models=["m"]))
    file = tmp_path / "c.yaml"
    with Issuer() as issuer:
        away = issuer.provider(name="away", issuer="https://away.example", jwks_url="http://127.0.0.1:1/jwks")
        for providers, code in (([issuer.provider(name="corp")], 0), ([issuer.provider(name="corp"), away], 2)):
            file.write_text(json.dumps({"auth": {"mode": "jwt", "jwt": providers}}))
            result = CliRunner().invoke(app, ["check", "--config", str(file)])
            assert result.exit_code == code, result.output
            assert f"answers corp {issuer.url}: keys: first (ES256)" in result.stdout
    assert "FAILED  away https://away.example: cannot connect to 127.0.0.1:1" in result.stdout
    report = json.loads(CliRunner().invoke(app, ["check", "--config", str(file), "--json", "--no-probe"]).stdout)
    assert report["issuers"] is None
