"""What the targets of the Makefile install, and that they say so."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from tests.unit.docs.pages import ROOT


def made() -> str:
    """The path of make."""
    make = shutil.which("make")
    if make is None:
        pytest.skip("needs make")
    return make


def planned(target: str, venv: Path) -> str:
    """The commands that a first `make TARGET` would run."""
    done = subprocess.run([made(), "-n", target, f"VENV={venv}"], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout


def test_the_demo_installs_only_what_it_needs(tmp_path: Path) -> None:
    commands = planned("demo", tmp_path / "venv")
    assert "--editable ." in commands
    assert "--group dev" not in commands
    assert re.findall(r'echo "(\d/\d)', commands) == ["1/2", "2/2"], "a line for each step"


@pytest.mark.parametrize("target", ["setup", "test", "lint", "bench"])
def test_development_has_its_tools_as_well(target: str, tmp_path: Path) -> None:
    commands = planned(target, tmp_path / "venv")
    assert commands.index("--editable .") < commands.index("--group dev")


def test_nothing_is_installed_twice(tmp_path: Path) -> None:
    venv = tmp_path / "venv"
    venv.mkdir()
    for stamp in (".installed", ".installed-dev"):
        (venv / stamp).touch()
    assert "pip install" not in planned("test", venv)
    (venv / ".installed-dev").unlink()
    assert "pip install" not in planned("demo", venv)
    assert "--editable" not in planned("test", venv)


@pytest.mark.parametrize(("fails", "code"), [("-n", 2), ("-m", 2), ("nothing", 0)])
def test_both_parts_of_the_tests_run_and_either_may_fail(fails: str, code: int, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    pytest_ = tmp_path / "pytest"
    pytest_.write_text(f'#!/bin/sh\ncat >> {ran} << end\n$1\nend\n[ "$1" != {fails} ]\n')
    pytest_.chmod(0o755)
    done = subprocess.run([made(), "-s", "test", f"PYTEST={pytest_}", "DEV="], cwd=ROOT, capture_output=True, check=False)
    assert (done.returncode, ran.read_text().split()) == (code, ["-n", "-m"])
