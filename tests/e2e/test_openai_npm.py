"""The official openai client of npm, unmodified, streaming a chat. Needs node and, the first time, the npm registry."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.conftest import MODEL
from tests.support.process import REPOSITORY
from tests.support.servers import Gateway

pytestmark = [pytest.mark.npm, pytest.mark.timeout(180)]  # a package comes from elsewhere

PACKAGE = "openai@7"
FOLDER = REPOSITORY / "out" / "npm"
SCRIPT = Path(__file__).with_name("openai_npm.mjs")
INSTALL_SECONDS = 60
RUN_SECONDS = 20


@pytest.fixture(scope="module")
def script() -> Path:
    """The script beside an installed client; skips where there is none to be had."""
    if not shutil.which("node") or not shutil.which("npm"):
        pytest.skip("node and npm are not installed")
    FOLDER.mkdir(parents=True, exist_ok=True)
    if not (FOLDER / "node_modules" / "openai").is_dir():
        command = ["npm", "install", "--prefix", str(FOLDER), "--no-audit", "--no-fund", "--no-save", PACKAGE]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_SECONDS, check=False)
        except subprocess.TimeoutExpired:
            pytest.skip(f"npm did not install {PACKAGE} within {INSTALL_SECONDS} s")
        if done.returncode:
            pytest.skip(f"npm could not install {PACKAGE}: {done.stderr.strip()[-300:]}")
    return Path(shutil.copy(SCRIPT, FOLDER))


def run(script: Path, *arguments: str) -> dict[str, Any]:
    done = subprocess.run(["node", str(script), *arguments], capture_output=True, text=True, timeout=RUN_SECONDS, check=True)
    return dict(json.loads(done.stdout))


def test_a_streamed_chat(script: Path, gateway: Gateway, http: httpx.Client) -> None:
    body = {"model": MODEL, "messages": [{"role": "user", "content": "Tell me about foxes."}], "max_tokens": 32, "seed": 1}
    whole = http.post("/v1/chat/completions", json=body).json()
    seen = run(script, f"{gateway.http}/v1", MODEL)
    assert seen["error"] is None
    assert MODEL in seen["models"]
    assert seen["text"] == whole["choices"][0]["message"]["content"]
    assert seen["chunks"] > 5
    assert (seen["finish"], seen["usage"]["completion_tokens"]) == ("length", 32)


@pytest.mark.parametrize(
    ("fault", "status", "name"),
    [
        ("status;code=401", 401, "AuthenticationError"),
        ("status;code=429", 429, "RateLimitError"),
        ("html", 502, "InternalServerError"),
        ("die_after=12;how=abort", None, "APIError"),
    ],
)
def test_errors_raise_the_clients_own_classes(
    script: Path, gateway: Gateway, fault: str, status: int | None, name: str
) -> None:
    seen = run(script, f"{gateway.http}/v1", MODEL, fault)
    assert (seen["error"]["name"], seen["error"]["status"]) == (name, status)
    assert seen["finish"] is None
