"""`buf curl` by reflection, as a user types it: no proto file at hand, every rpc, against the real process."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.servers import Gateway, Simulator, base_config

BUF = Path(sys.executable).parent / "buf"
MODEL = "qwen3-32b"
VECTORS = "embed-small"
CHAT = {"model": MODEL, "messages": [{"role": "ROLE_USER", "text": "Say hello."}], "sampling": {"maxTokens": 5}}

Curl = Callable[..., list[dict[str, Any]]]


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    arguments = ("--embedding-model", VECTORS, "--itl-ms", "1", "--ttft-ms", "1")
    with Simulator(*arguments, model=MODEL) as sim:
        config = base_config(main={"url": sim.url, "models": [MODEL, VECTORS]})
        with Gateway(config, tmp_path_factory.mktemp("gateway")) as process:
            yield process


@pytest.fixture
def run(gateway: Gateway, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run buf curl in an empty directory."""
    (tmp_path / "empty").mkdir()
    env = os.environ | {"BUF_CACHE_DIR": str(tmp_path / "cache"), "NO_PROXY": "*"}

    def curl(method: str, data: dict[str, Any], *options: str) -> subprocess.CompletedProcess[str]:
        url = f"http://{gateway.grpc}/{method}"
        command = [str(BUF), "curl", "--protocol", "grpc", "--http2-prior-knowledge", *options, "-d", json.dumps(data), url]
        return subprocess.run(command, cwd=tmp_path / "empty", env=env, capture_output=True, text=True, timeout=30, check=False)

    return curl


@pytest.fixture
def curl(run: Callable[..., subprocess.CompletedProcess[str]]) -> Curl:
    """Run buf curl, and read the messages that it prints."""

    def read(rpc: str, data: dict[str, Any], *options: str) -> list[dict[str, Any]]:
        done = run(rpc if "/" in rpc else f"lexora.v1.RouterService/{rpc}", data, *options)
        assert done.returncode == 0, done.stderr
        return messages(done.stdout)

    return read


def messages(text: str) -> list[dict[str, Any]]:
    """JSON documents one after the other."""
    found, at, decoder = [], 0, json.JSONDecoder()
    while at < len(text.rstrip()):
        document, at = decoder.raw_decode(text, at + len(text[at:]) - len(text[at:].lstrip()))
        found.append(document)
    return found


def test_generate(curl: Curl) -> None:
    (answer,) = curl("Generate", {"call": {"chat": CHAT}})
    assert answer["chat"]["choices"][0]["message"]["text"]
    assert answer["receipt"]["backend"] == "main"


def test_stream(curl: Curl) -> None:
    first, *middle, last = curl("Stream", {"call": {"options": {"requestId": "r-1"}, "chat": CHAT}})
    assert first["started"]["receipt"]["requestId"] == last["completed"]["receipt"]["requestId"] == "r-1"
    assert "".join(choice.get("text", "") for message in middle for choice in message["delta"]["chat"]["choices"])
    assert last["completed"]["receipt"]["usage"]["outputTokens"] == "5"


def test_embed(curl: Curl) -> None:
    (answer,) = curl("Embed", {"model": VECTORS, "texts": {"values": ["a", "b"]}})
    assert len(answer["embeddings"]) == 2


def test_list_models(curl: Curl) -> None:
    (answer,) = curl("ListModels", {})
    assert {model["id"] for model in answer["models"]} == {MODEL, VECTORS}


def test_health(curl: Curl) -> None:
    (answer,) = curl("Health", {})
    assert answer["status"] == "BACKEND_STATUS_HEALTHY"


def test_get_stats(curl: Curl) -> None:
    (answer,) = curl("lexora.v1.AdminService/GetStats", {})
    assert float(answer["uptime"].removesuffix("s")) > 0


def test_classify_is_switched_off(run: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    done = run("lexora.v1.RouterService/Classify", {"taskDescription": "Sort these."})
    assert done.returncode != 0
    assert '"code": "unavailable"' in done.stderr
    assert "routing.classifier.enabled" in done.stderr


def test_an_error_shows_its_details(run: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    done = run("lexora.v1.RouterService/Generate", {})
    error = json.loads(done.stderr)
    assert error["code"] == "invalid_argument"
    assert {detail["type"] for detail in error["details"]} == {
        *("google.rpc.ErrorInfo", "google.rpc.BadRequest", "lexora.v1.Receipt"),
    }


@pytest.mark.parametrize("protocol", ["grpc-v1", "grpc-v1alpha"])
def test_the_health_service(curl: Curl, protocol: str) -> None:
    (answer,) = curl("grpc.health.v1.Health/Check", {"service": "lexora.v1.RouterService"}, "--reflect-protocol", protocol)
    assert answer == {"status": "SERVING"}
