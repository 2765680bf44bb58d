"""Coding agents as they call: Codex (Responses API, compressed, WebSocket first) and Claude Code (Messages API)."""

import json
import uuid
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from backports import zstd

from tests.support.servers import Gateway, Simulator, base_config

MODEL = "qwen3-32b"
DEVICE, ACCOUNT = "a" * 64, "5b7c1d0e-0000-4000-8000-000000000000"
TOOLS = [
    {"name": name, "description": f"{name} a file.", "input_schema": {"type": "object"}} for name in ("Read", "Write", "Bash")
]


@pytest.fixture(scope="module")
def engine() -> Iterator[Simulator]:
    with Simulator(model=MODEL) as engine:
        yield engine


@pytest.fixture(scope="module")
def gateway(engine: Simulator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    config = base_config(main={"url": engine.url, "models": [MODEL]})
    config["routing"]["aliases"] = {"claude-sonnet-4-5": MODEL}
    with Gateway(config, tmp_path_factory.mktemp("gateway")) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def client(gateway: Gateway) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=gateway.http, timeout=30) as client:
        yield client


def events(answer: httpx.Response) -> list[dict[str, Any]]:
    return [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: {")]


def tenants(client: httpx.Client) -> dict[str, Any]:
    return dict(client.get("/stats").json()["by_tenant"])


# -- Codex


def codex_turn(conversation: str, text: str) -> dict[str, Any]:
    return {
        "model": MODEL,
        "instructions": "You are a coding agent.",
        "input": [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}],
        "tools": [{"type": "function", "name": "shell", "strict": False, "parameters": {"type": "object", "properties": {}}}],
        "tool_choice": "none",
        "parallel_tool_calls": False,
        "reasoning": {"effort": "medium", "summary": "auto"},
        "store": False,
        "stream": True,
        "include": ["reasoning.encrypted_content"],
        "prompt_cache_key": conversation,
        "max_output_tokens": 8,
    }


def codex_headers(conversation: str) -> dict[str, str]:
    return {
        "accept": "text/event-stream",
        "content-type": "application/json",
        "originator": "codex_cli_rs",
        "session_id": conversation,
        "user-agent": "codex_cli_rs/0.60.1 (Debian 12; x86_64)",
        "version": "0.60.1",
    }


def test_codex(client: httpx.Client, engine: Simulator) -> None:
    conversation = str(uuid.uuid4())
    websocket = {
        "connection": "Upgrade",
        "upgrade": "websocket",
        "sec-websocket-key": "x" * 22 + "==",
        "sec-websocket-version": "13",
    }
    assert client.get("/v1/responses", headers=websocket).status_code == 426, "then it calls over HTTP"
    sent = json.dumps(codex_turn(conversation, "Explain this repository. " * 200)).encode()
    answer = client.post(
        "/v1/responses", content=zstd.compress(sent), headers=codex_headers(conversation) | {"content-encoding": "zstd"}
    )
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert [event["type"] for event in events(answer)][:: len(events(answer)) - 1] == ["response.created", "response.completed"]
    assert engine.posts()[-1]["path"] == "/v1/responses"


# -- Claude Code


def claude_turn(**more: Any) -> dict[str, Any]:
    return {
        "model": "claude-sonnet-4-5",
        "max_tokens": 8,
        "system": [
            {"type": "text", "text": "You are Claude Code.", "cache_control": {"type": "ephemeral"}},
            {"type": "text", "text": "Answer briefly."},
        ],
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "Hello", "cache_control": {"type": "ephemeral"}}]},
        ],
        "tools": TOOLS,
        "tool_choice": {"type": "none"},
        "metadata": {"user_id": f"user_{DEVICE}_account_{ACCOUNT}_session_{uuid.uuid4()}"},
        "temperature": 1,
        **more,
    }


CLAUDE_HEADERS = {
    "anthropic-beta": "claude-code-20250219,interleaved-thinking-2025-05-14",
    "anthropic-dangerous-direct-browser-access": "true",
    "anthropic-version": "2023-06-01",
    "authorization": "Bearer unused",
    "user-agent": "claude-cli/2.0.14 (external, cli)",
    "x-app": "cli",
    "x-stainless-lang": "js",
    "x-stainless-retry-count": "0",
    "x-stainless-timeout": "600",
}


def test_claude_code(client: httpx.Client) -> None:
    assert client.head("/").status_code == 200, "it looks whether somebody is there"
    count = {key: value for key, value in claude_turn().items() if key in ("model", "messages", "system", "tools")}
    counted = client.post("/v1/messages/count_tokens?beta=true", json=count, headers=CLAUDE_HEADERS)
    assert counted.status_code == 200, counted.text
    assert counted.json()["input_tokens"] > 0
    answer = client.post("/v1/messages?beta=true", json=claude_turn(stream=True), headers=CLAUDE_HEADERS)
    assert answer.status_code == 200, answer.text
    kinds = [event["type"] for event in events(answer)]
    assert (kinds[0], kinds[-1]) == ("message_start", "message_stop")
    assert "content_block_delta" in kinds


def test_claude_code_s_sessions_are_one_user(client: httpx.Client) -> None:
    before = tenants(client)
    for _ in range(2):
        client.post("/v1/messages", json=claude_turn(), headers=CLAUDE_HEADERS).raise_for_status()
    (user,) = (name for name, counts in tenants(client).items() if counts != before.get(name))
    assert user == f"user_{DEVICE}_account_{ACCOUNT}"


def test_claude_code_reads_errors(client: httpx.Client) -> None:
    answer = client.post("/v1/messages?beta=true", json=claude_turn(max_tokens="many", stream=True), headers=CLAUDE_HEADERS)
    assert answer.status_code == 400
    assert answer.json()["type"] == "error"
    assert answer.json()["error"]["type"] == "invalid_request_error"
