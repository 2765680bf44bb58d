"""Pages of other origins: what their browsers ask, what the answers allow, and a real page in a real browser."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.conftest import MODEL
from tests.support.browser import chromium, needs_chromium, page
from tests.support.engine import ScriptedEngine
from tests.support.raw_server import reply
from tests.support.servers import Facade, Gateway, Simulator, calm_config

CHAT = "/v1/chat/completions"
LISTED = "https://chat.example.com"
OTHER = "https://evil.example.org"
GOOD = json.dumps({"model": MODEL, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 4}).encode()
LIMIT = 100_000
ORIGINS = [LISTED, "https://*.example.net", "http://localhost:*", "http://127.0.0.1:*"]


@pytest.fixture(scope="module")
def gateway(sim: Simulator, folder: Path) -> Iterator[Gateway]:
    config = calm_config(main={"url": sim.url, "models": [MODEL]})
    config["server"] |= {"max_body_bytes": LIMIT, "cors": {"allow_origins": ORIGINS}}
    config["rate_limit"] = {"users": {"limited": {"rate": 0.001, "burst": 1}}}
    with Gateway(config, folder) as process:
        yield process


@pytest.fixture(scope="module", params=["serve", "gateway"])
def base(request: pytest.FixtureRequest, gateway: Gateway) -> Iterator[str]:
    if request.param == "serve":
        yield gateway.http
        return
    with Facade(gateway) as facade:
        yield facade.http


def ask(base: str, method: str, path: str, origin: str | None, body: bytes = b"", **headers: str) -> httpx.Response:
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    given |= {} if origin is None else {"origin": origin}
    return httpx.request(method, base + path, content=body, headers={"content-type": "application/json"} | given, verify=False)


def preflight(base: str, path: str, origin: str, **headers: str) -> httpx.Response:
    return ask(base, "OPTIONS", path, origin, access_control_request_method="POST", **headers)


def shown(answer: httpx.Response) -> set[str]:
    return set(answer.headers["access-control-expose-headers"].split(", "))


@pytest.mark.parametrize("origin", [LISTED, "https://a.b.example.net", "http://localhost:3000"])
@pytest.mark.parametrize("path", [CHAT, "/v1/models", "/health", "/nowhere"])
def test_a_browser_asks_ahead(base: str, path: str, origin: str) -> None:
    asked = "authorization, content-type, x-stainless-os"
    answer = preflight(base, path, origin, access_control_request_headers=asked, access_control_request_private_network="true")
    assert (answer.status_code, answer.content) == (204, b"")
    headers = answer.headers
    assert headers["access-control-allow-origin"] == origin
    assert {"GET", "POST", "DELETE"} <= set(headers["access-control-allow-methods"].split(", "))
    assert headers["access-control-allow-headers"] == asked
    assert headers["access-control-allow-private-network"] == "true"
    assert headers["access-control-max-age"] == "600"
    assert "Origin" in headers["vary"]
    assert "access-control-allow-credentials" not in headers


UNLISTED = (
    OTHER,
    "https://example.net",
    "https://chat.example.com.evil.org",
    "https://evilexample.net",
    LISTED + ":8443",
    "null",
)


@pytest.mark.parametrize("origin", UNLISTED)
def test_a_page_that_is_not_listed(base: str, origin: str) -> None:
    refused = preflight(base, CHAT, origin)
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "origin_not_allowed")
    assert "server.cors.allow_origins" in refused.json()["error"]["message"]
    # Without that question it is served, as a program would be, and its browser hides the answer.
    served = ask(base, "POST", CHAT, origin, GOOD)
    assert served.status_code == 200
    for answer in (refused, served):
        assert "access-control-allow-origin" not in answer.headers
        assert "Origin" in answer.headers["vary"]


ANSWERS: dict[str, tuple[int, tuple[str, str, bytes], dict[str, str]]] = {
    "whole": (200, ("POST", CHAT, GOOD), {}),
    "streamed": (200, ("POST", CHAT, GOOD[:-1] + b', "stream": true}'), {}),
    "models": (200, ("GET", "/v1/models", b""), {}),
    "no such path": (404, ("GET", "/nowhere", b""), {}),
    "no such method": (405, ("DELETE", "/v1/models", b""), {}),
    "malformed": (400, ("POST", CHAT, b"{"), {}),
    "too large": (413, ("POST", CHAT, b" " * (LIMIT + 1)), {}),
    "an encoding": (415, ("POST", CHAT, GOOD), {"content_encoding": "compress"}),
    "over the limit": (429, ("POST", CHAT, GOOD[:-1] + b', "user": "limited"}'), {}),
    "a head that is too large": (431, ("GET", "/v1/models", b""), {"x_large": "a" * 70_000}),
}


@pytest.mark.parametrize("what", ANSWERS)
def test_every_answer_can_be_read_by_its_page(base: str, what: str) -> None:
    status, (method, path, body), headers = ANSWERS[what]
    if status == 429:
        ask(base, method, path, None, body)
    answer = ask(base, method, path, LISTED, body, **headers)
    assert answer.status_code == status
    assert answer.headers.get_list("access-control-allow-origin") == [LISTED]
    sent = {name for name in answer.headers if name.startswith("x-") and name not in ("x-accel-buffering",)}
    assert sent | {"retry-after", "x-lexora-backend", "x-ratelimit-remaining-tokens"} <= shown(answer)


def test_other_clients_see_nothing_of_it(base: str) -> None:
    answer = ask(base, "POST", CHAT, None, GOOD)
    assert answer.status_code == 200
    assert not [name for name in answer.headers if name.startswith("access-control-")]


PAGE = b"""<!doctype html><meta charset=utf-8><title>elsewhere</title><script>
async function call(base, body, more) {
  const headers = {"content-type": "application/json", authorization: "Bearer key", "x-lexora-priority": "high", ...more};
  try {
    const answer = await fetch(base + "/v1/chat/completions", {method: "POST", headers, body: JSON.stringify(body)});
    let text = "";
    for (let reader = answer.body.getReader(), step; !(step = await reader.read()).done;)
      text += new TextDecoder().decode(step.value);
    return {status: answer.status, text, headers: Object.fromEntries(answer.headers)};
  } catch (error) { return {error: String(error)}; }
}
</script>"""
COMPLAINTS = ("Failed to load resource", "blocked by CORS policy")


@needs_chromium
def test_a_page_in_a_browser(gateway: Gateway, sim: Simulator, tmp_path: Path) -> None:
    body = {"model": MODEL, "messages": [{"role": "user", "content": "Tell me about foxes."}], "max_tokens": 24, "stream": True}
    with ScriptedEngine("m") as elsewhere, chromium() as browser:
        elsewhere.pages["/"] = reply(PAGE, content_type="text/html")
        with page(browser, elsewhere.url + "/", but=COMPLAINTS) as opened:

            def call(base: str, body: dict[str, Any], **more: str) -> dict[str, Any]:
                return dict(opened.evaluate("([base, body, more]) => call(base, body, more)", [base, body, more]))

            answer = call(gateway.http, body)
            assert answer["status"] == 200
            assert answer["text"].rstrip().endswith("data: [DONE]")
            assert answer["text"].count("data: ") > 10
            assert answer["headers"]["content-type"].startswith("text/event-stream")
            assert answer["headers"]["x-lexora-backend"] == "main"
            assert answer["headers"]["x-request-id"]
            wrong = call(gateway.http, body | {"messages": "hi"})
            assert (wrong["status"], "messages must be an array" in wrong["text"]) == (400, True)
            call(gateway.http, body | {"user": "limited"})
            limited = call(gateway.http, body | {"user": "limited"})
            assert (limited["status"], bool(limited["headers"]["retry-after"])) == (429, True)
            assert limited["headers"]["x-ratelimit-limit-requests"] == "1"
            # Off by default: the browser asks ahead, and that is the end of it.
            with Gateway(calm_config(main={"url": sim.url, "models": [MODEL]}), tmp_path) as closed:
                before = len(sim.posts())
                assert "Failed to fetch" in call(closed.http, body)["error"]
                assert len(sim.posts()) == before
