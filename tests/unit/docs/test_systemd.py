"""The unit file is one that systemd takes without a word, and that is rated as hardened."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from tests.unit.docs.pages import ROOT, page

UNIT = ROOT / "deploy" / "systemd" / "lexora.service"
ANALYZE = shutil.which("systemd-analyze")
OFFLINE_SINCE = 250
WORST = 2.0

needs_systemd = pytest.mark.skipif(ANALYZE is None, reason="systemd-analyze is missing (apt install systemd)")


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    assert ANALYZE is not None
    return subprocess.run([ANALYZE, *arguments], capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """A copy whose program exists, because systemd asks for that."""
    text, count = re.subn(r"^ExecStart=/opt/lexora/bin/lexora ", "ExecStart=/bin/true ", UNIT.read_text(), flags=re.M)
    assert count == 1
    copy = tmp_path / UNIT.name
    copy.write_text(text)
    return copy


def test_the_allocator_is_one_that_gives_memory_back() -> None:
    assert "\nEnvironment=PYTHONMALLOC=malloc\n" in UNIT.read_text()


@needs_systemd
def test_verify_has_nothing_to_say(unit: Path) -> None:
    verified = run("verify", str(unit))
    assert (verified.returncode, verified.stdout, verified.stderr) == (0, "", "")


@needs_systemd
def test_verify_would_tell_of_a_mistake(unit: Path) -> None:
    unit.write_text(unit.read_text().replace("ProtectHome=yes", "ProtectHome=perhaps\nProtectHorse=yes"))
    told = run("verify", str(unit)).stderr
    assert "ProtectHorse" in told
    assert "perhaps" in told


@needs_systemd
def test_the_service_is_rated_as_hardened(unit: Path) -> None:
    version = int(re.search(r"systemd (\d+)", run("--version").stdout)[1])  # type: ignore[index]  # it always says
    if version < OFFLINE_SINCE:
        pytest.skip(f"systemd {version} cannot rate offline, {OFFLINE_SINCE} can")
    rated = run("security", "--offline=true", "--no-pager", str(unit))
    exposure = re.search(r"exposure level for lexora\.service: ([\d.]+)", rated.stdout)
    assert exposure, rated.stderr
    assert float(exposure[1]) < WORST


def test_the_unit_and_the_page_agree_on_places() -> None:
    text, guide = UNIT.read_text(), page("docs/operations.md").text
    for place in ("/opt/lexora/bin/lexora", "/etc/lexora/config.yaml", "/etc/lexora/lexora.env"):
        assert place in text
        assert place in guide
    assert "TimeoutStopSec=45s" in text
    assert "TimeoutStopSec=45s" in guide
