import re
import subprocess
import sys
from pathlib import Path

import pytest
from tests.support.process import REPOSITORY
from typer.testing import CliRunner

from lexora_cli.main import app
from lexora_router import version
from lexora_router.version import __version__

ASK = ["chat", "models", "status", "top", "explain", "reload", "idle", "audit", "whoami"]
COMMANDS = ["serve", "init", "check", "keys", "router", "gateway", *ASK, "demo", "sim"]
KEYS = [f"keys {command}" for command in ("create", "list", "show", "revoke", "rotate", "import")]
HEAVY = {"aiohttp", "fastapi", "grpc", "httpx", "pydantic", "uvicorn", "yaml"}


def test_the_version_has_the_commit_where_there_is_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def shown() -> str:
        result = CliRunner().invoke(app, ["--version"])
        assert result.exit_code == 0
        return result.stdout

    monkeypatch.setattr(version, "_BUILT_FROM", tmp_path / "commit.txt")
    monkeypatch.setattr(version, "_CHECKOUT", tmp_path)
    assert shown() == f"lexora {__version__}\n"  # neither built nor checked out
    (tmp_path / ".git").write_text("")
    assert shown() == f"lexora {__version__}\n"  # git cannot read it
    monkeypatch.setenv("PATH", "")
    assert shown() == f"lexora {__version__}\n"  # there is no git
    monkeypatch.undo()
    monkeypatch.setattr(version, "_BUILT_FROM", tmp_path / "commit.txt")
    (tmp_path / "commit.txt").write_text("0123456789ab\n")
    assert shown() == f"lexora {__version__} (commit 0123456789ab)\n"


def test_a_checkout_s_commit_is_git_s() -> None:
    if not (REPOSITORY / ".git").exists():
        pytest.skip("needs a checkout")
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    assert head.startswith(version.commit().removesuffix("-dirty"))


def shown(*arguments: str) -> str:
    """The help in a terminal of 80 columns, where nothing is cut and every option of a kind looks the same."""
    result = CliRunner().invoke(app, [*arguments, "--help"], env={"COLUMNS": "80", "TERMINAL_WIDTH": "80"})
    assert result.exit_code == 0
    assert max(map(len, result.stdout.splitlines())) <= 80
    for cut in ("...", "…", "bool", "list[", "[bold]", "\b", "--help <", "--json <"):
        assert cut not in result.stdout.replace("[ARGS]...", ""), cut
    return result.stdout


def test_help_lists_every_command() -> None:
    text = shown()
    for command in COMMANDS:
        assert re.search(rf"(?m)^  {command} +[A-Z].*\.$", text), command
    assert re.findall(r"(?m)^([A-Z].*):$", text) == ["Options", "Serve", "Ask a router", "Try without a GPU"]


@pytest.mark.parametrize("command", COMMANDS + KEYS)
def test_help_of_a_command_has_examples(command: str) -> None:
    """Alike in every command: a headline, and one line for each example."""
    text = shown(*command.split())
    [block] = re.findall(r"(?m)^  Examples:\n((?:    .+\n)+)\n(?=Options:|Arguments:)", text)
    examples = [line.strip() for line in block.splitlines()]
    assert examples
    for example in examples:
        assert re.search(rf"(^|\| |LEXORA\S+ |KEY=\$\()lexora {command}\b", example), example


def test_the_places_of_the_file_survive_the_markup_of_the_help() -> None:
    result = CliRunner().invoke(app, ["check", "--help"], env={"COLUMNS": "200"})
    assert "[config/]lexora_config.yaml" in result.stdout


@pytest.mark.parametrize(
    "arguments",
    [["serve", "--port", "65536"], ["serve", "--nonsense"], ["gateway"], ["sim", "--port", "x"], ["unknown"]],
)
def test_usage_errors_end_with_2(arguments: list[str]) -> None:
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2
    assert "Traceback" not in result.output


@pytest.mark.parametrize("command", ["status", "chat", "gateway"])
def test_a_router_is_no_url(command: str) -> None:
    result = CliRunner().invoke(app, [command, "--router", "http://127.0.0.1:50051"], env={"COLUMNS": "200"})
    assert result.exit_code == 2
    assert "without http://" in result.output


@pytest.mark.parametrize("prompt", ["", " "])
def test_an_empty_prompt_is_not_asked(prompt: str) -> None:
    result = CliRunner().invoke(app, ["chat", prompt])
    assert result.exit_code == 2
    assert "there is nothing to ask" in result.output


def test_heavy_modules_wait_for_the_command_that_needs_them() -> None:
    code = "import sys, lexora_cli.main; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not HEAVY & {name.partition(".")[0] for name in loaded}
