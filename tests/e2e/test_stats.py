"""What the gateway says of its calls is what the clients and the engine saw: statistics, metrics and recent calls."""

import time
from typing import Any

import httpx
import pytest

from tests.e2e.conftest import MODEL
from tests.support import wire
from tests.support.servers import Gateway, Simulator

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
INPUTS: dict[str, dict[str, Any]] = {
    CHAT: {"messages": [{"role": "user", "content": "Tell me about foxes."}]},
    COMPLETIONS: {"prompt": "Once upon a time"},
}
TOKENS = 12


def body(path: str, **fields: Any) -> dict[str, Any]:
    return {"model": MODEL, "max_tokens": TOKENS, "ignore_eos": True} | INPUTS[path] | fields


def stream(http: httpx.Client, path: str, events: int | None = None, **fields: Any) -> list[str]:
    """Read a stream's events, and leave after so many."""
    # With its ids every token is an event; else those that bring no text are none.
    asked = body(path, stream=True, return_token_ids=True, **fields)
    seen: list[str] = []
    with http.stream("POST", path, json=asked) as answer:
        for line in answer.iter_lines():
            if line.startswith("data: "):
                seen.append(line)
            if len(seen) == events:
                break
    return seen


class Since:
    """What has been added to the statistics since this was made."""

    def __init__(self, http: httpx.Client) -> None:
        self._http = http
        self._before = self._told()

    def _told(self) -> dict[str, Any]:
        return dict(self._http.get("/stats").raise_for_status().json())

    def grown(self, *path: str) -> float:
        """How much the number there has grown; what is not there is 0."""
        return _at(self._told(), path) - _at(self._before, path)

    def wait(self, count: int) -> None:
        """Return when so many calls have ended."""
        wire.wait_until(lambda: self.grown("total_requests") >= count, f"{count} calls to end")
        assert self.grown("total_requests") == count


def _at(told: Any, path: tuple[str, ...]) -> float:
    for name in path:
        told = told.get(name, {})
    return float(told or 0)


@pytest.fixture
def since(http: httpx.Client) -> Since:
    return Since(http)


def test_streams_and_whole_answers_are_counted(http: httpx.Client, since: Since) -> None:
    whole = http.post(CHAT, json=body(CHAT, user="a")).raise_for_status().json()["usage"]
    for path in (CHAT, COMPLETIONS):
        stream(http, path, user="b", sim_fault="drip=20")
    since.wait(3)
    assert since.grown("successful_requests") == 3
    for by, name, count in (
        ("by_tenant", "a", 1),
        ("by_tenant", "b", 2),
        ("by_path", CHAT, 2),
        ("by_path", COMPLETIONS, 1),
        ("by_model", MODEL, 3),
        ("by_backend", "main", 3),
    ):
        assert since.grown(by, name, "total") == since.grown(by, name, "successful") == count
        assert since.grown(by, name, "tokens_output") == count * TOKENS
    assert since.grown("by_tenant", "a", "tokens_input") == whole["prompt_tokens"]
    for within in ("last_minute", "last_five_minutes", "since_start"):
        assert [since.grown(within, kind, "count") for kind in ("total", "queue", "ttft")] == [3, 3, 2]
        assert since.grown(within, "itl", "count") >= TOKENS, "pieces that come one by one have gaps between them"


def test_the_gaps_of_a_stream_fill_the_time_behind_its_first_token(http: httpx.Client, since: Since) -> None:
    stream(http, COMPLETIONS, sim_fault="drip=20")
    since.wait(1)
    (call,) = http.get("/stats/recent", params={"limit": 1}).json()["calls"]
    told = http.get("/stats").json()["since_start"]["itl"]
    before = since._before["since_start"]["itl"]
    gaps = told["mean"] * told["count"] - before["mean"] * before["count"]
    rest = call["total_seconds"] - call["ttft_seconds"]
    assert 0.5 * rest <= gaps <= rest + 1e-6


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
def test_tokens_for_clients_that_left_are_those_that_the_engine_made(
    http: httpx.Client, since: Since, sim: Simulator, gateway: Gateway, path: str
) -> None:
    before = gateway.metric("lexora_tokens_wasted_total", reason="client_left")
    for tokens in (3, 5, 8):
        stream(http, path, tokens + (path == CHAT), sim_fault=f"freeze_after={tokens}")  # a chat names its speaker first
    since.wait(3)
    wire.wait_until(lambda: sim.stats()["aborts"] == 3, "three aborts")
    made = sum(call["tokens_sent"] for call in sim.posts())
    assert made == 16
    assert since.grown("tokens_wasted", "client_left") == made
    assert gateway.metric("lexora_tokens_wasted_total", reason="client_left") - before == made
    assert (since.grown("cancelled_requests"), since.grown("by_path", path, "cancelled")) == (3, 3)
    assert (since.grown("failed_requests"), since.grown("by_path", path, "failed")) == (0, 0)


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
@pytest.mark.parametrize("how", ["fin", "error", "eof"])
def test_tokens_of_streams_that_broke_are_those_that_the_engine_made(
    http: httpx.Client, since: Since, sim: Simulator, path: str, how: str
) -> None:
    stream(http, path, sim_fault=f"die_after=6;how={how}")
    since.wait(1)
    assert since.grown("tokens_wasted", "failed") == sim.posts()[-1]["tokens_sent"] == 6
    assert (since.grown("failed_requests"), since.grown("errors_by_type", "UPSTREAM_BROKEN")) == (1, 1)


def test_tenants_without_end_share_a_place(http: httpx.Client, since: Since) -> None:
    for number in range(250):
        http.post("/tokenize", json={"model": MODEL, "prompt": "a", "user": f"user-{number}"}).raise_for_status()
    assert len(http.get("/stats").json()["by_tenant"]) == 201
    assert since.grown("by_tenant", "other", "total") >= 50


def test_the_history_adds_up(http: httpx.Client, since: Since) -> None:
    http.post(CHAT, json=body(CHAT)).raise_for_status()
    since.wait(1)
    told = http.get("/stats").json()
    history = told["history"]
    assert sum(each["total"] for each in history) == told["last_five_minutes"]["total"]["count"]
    assert sum(each["total"] for each in history[-6:]) == told["last_minute"]["total"]["count"]
    assert [each["start_unix"] - history[0]["start_unix"] for each in history] == [10 * place for place in range(len(history))]
    assert history[-1]["start_unix"] <= time.time() + 1


def test_recent_calls_say_how_it_went_and_nothing_else(http: httpx.Client, sim: Simulator) -> None:
    http.post(CHAT, json=body(CHAT, user="nobody-s business"), headers={"x-request-id": "well"}).raise_for_status()
    http.post(CHAT, json=body(CHAT, sim_fault="status;code=500"), headers={"x-request-id": "ill"})
    answer = http.get("/stats/recent?limit=2")
    ill, well = answer.json()["calls"]
    assert (well["request_id"], well["status"], well["error"], well["tokens_output"]) == ("well", 200, "", TOKENS)
    assert (well["path"], well["model"], well["backend"], well["endpoint"]) == (CHAT, MODEL, "main", sim.url)
    assert 0 <= well["queue_seconds"] <= well["ttft_seconds"] <= well["total_seconds"]
    assert (ill["request_id"], ill["status"], ill["error"], ill["tokens_output"]) == ("ill", 500, "UPSTREAM_ERROR", None)
    assert "foxes" not in answer.text
    assert "business" not in answer.text
    assert len(http.get("/stats/recent").json()["calls"]) <= 50
    assert http.get("/stats/recent?limit=ten").status_code == 400
