"""Every path answers with what its caller can use: HEAD, GET /, a path that is slightly wrong, WebSockets, the pages."""

import json
import re
from collections.abc import Iterator

import pytest

from tests.support import wire
from tests.support.browser import chromium, needs_chromium, page
from tests.support.servers import Gateway, Simulator

HEADS = [
    "/",
    "/health",
    "/health/live",
    "/health/ready",
    "/v1/models",
    "/v1/models/capabilities",
    "/stats",
    "/metrics",
    "/ui",
    "/ui/",
    "/ui/main.js",
    "/docs",
    "/openapi.json",
    "/nothing",
    "/v1/chat/completions",
]


def ask(gateway: Gateway, path: str, method: str = "GET", **headers: str) -> wire.Response:
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    empty = {"content-type": "", "content-length": "", "connection": "close"}
    return wire.exchange(gateway.http, wire.request(path, method=method, headers=empty | given))


def message_of(answer: wire.Response) -> str:
    assert answer.header("content-type") == "application/json"
    assert answer.header("x-request-id")
    error = json.loads(answer.body)["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return str(error["message"])


@pytest.mark.parametrize("path", HEADS)
def test_head_is_get_without_a_body(gateway: Gateway, path: str) -> None:
    changing = {"date", "x-request-id", "connection"} | ({"content-length"} if path in ("/metrics", "/stats") else set())
    whole = ask(gateway, path)
    # With the next request behind it, any byte of a body would show.
    head = f"HEAD {path} HTTP/1.1\r\nhost: gateway\r\n\r\n"
    with wire.connect(gateway.http) as connection:
        connection.sendall(f"{head}{head}GET /health/live HTTP/1.1\r\nhost: gateway\r\nconnection: close\r\n\r\n".encode())
        raw = b"".join(iter(lambda: connection.recv(65536), b""))
    first, second, live = (part.decode() for part in re.split(rb"(?=HTTP/1\.1 )", raw)[1:])
    assert live.endswith('{"status":"alive"}')
    for answer in (first, second):
        lines, _, body = answer.partition("\r\n\r\n")
        assert not body
        status, *headers = lines.split("\r\n")
        assert int(status.split()[1]) == whole.status
        names = {name.lower(): value for name, _, value in (line.partition(": ") for line in headers)}
        assert {n: v for n, v in names.items() if n not in changing} == {
            name: value for name, value in whole.headers if name not in changing
        }
        assert int(names["content-length"]) > 0 or path == "/ui"


def test_the_root_says_what_this_is(gateway: Gateway) -> None:
    answer = ask(gateway, "/")
    told = json.loads(answer.body)
    assert (answer.status, told["name"]) == (200, "Spirrow-Lexora")
    assert told["version"]
    for place in ("models", "documentation", "openapi", "page", "health", "stats", "metrics"):
        assert ask(gateway, told[place]).status == 200, place
    browser = ask(gateway, "/", accept="text/html,application/xhtml+xml,*/*;q=0.8")
    assert (browser.status, browser.header("location"), browser.header("vary")) == (307, "ui/", "accept")


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_slightly_wrong_path_is_put_right(gateway: Gateway, method: str) -> None:
    for path in ("/chat/completions", "/v1/v1/chat/completions", "/v1/chat/completions/", "/openai/v1/chat/completions"):
        answer = ask(gateway, path, method)
        assert answer.status == 404
        assert message_of(answer) == f"Unknown path: {path}. Did you mean /v1/chat/completions?"
    assert "GET / lists" in message_of(ask(gateway, "/v1/images/generations", method))


def test_a_wrong_method_names_the_right_one(gateway: Gateway) -> None:
    for method, path, allowed in (
        ("GET", "/v1/chat/completions", "POST"),
        ("PATCH", "/generate", "POST"),
        ("POST", "/v1/models", "GET, HEAD"),
        ("DELETE", "/health", "GET, HEAD"),
    ):
        answer = ask(gateway, path, method)
        error = json.loads(answer.body)["error"]
        assert (answer.status, answer.header("allow"), error["code"]) == (405, allowed, "method_not_allowed")
        assert error["message"].startswith(f"Method {method} is not allowed here; use ")


@pytest.mark.parametrize("path", ["/v1/responses", "/v1/chat/completions", "/chat"])
def test_a_websocket_is_told_to_use_http(gateway: Gateway, path: str) -> None:
    offer = {"connection": "Upgrade", "upgrade": "websocket", "sec_websocket_key": "dGhlIHNhbXBsZSBub25jZQ=="}
    answer = ask(gateway, path, **offer)
    assert answer.status == 426
    assert (answer.header("upgrade"), answer.header("connection")) == ("HTTP/1.1", "Upgrade")
    assert message_of(answer) == "WebSockets are not served here: send POST requests over HTTP/1.1."
    assert ask(gateway, "/v1/realtime", **offer).status == 404
    assert ask(gateway, "/health/live", **offer).status == 200


RANGES = {'"': 400, "bytes=": 400, "lines=1-2": 400, "bytes=5-1": 400, "bytes=99999999-": 416}


@pytest.mark.parametrize("given", RANGES)
def test_a_range_that_makes_no_sense_is_refused_in_the_usual_shape(gateway: Gateway, given: str) -> None:
    for path in ("/ui/", "/docs"):
        answer = ask(gateway, path, range=given)
        assert answer.status == RANGES[given]
        assert "ange" in message_of(answer)
        assert (answer.header("content-range") is not None) == (answer.status == 416)
    assert ask(gateway, "/ui/", range="bytes=0-9").status == 206


def test_a_body_that_was_not_asked_for_ends_the_connection(gateway: Gateway) -> None:
    # Without a 100 the client may leave its body out, so what comes next could be either.
    answer = ask(gateway, "/nothing", "POST", connection="", expect="100-continue", content_length="5")
    assert (answer.status, answer.header("connection")) == (404, "close")


@needs_chromium
def test_the_documentation_needs_nothing_from_outside(gateway: Gateway) -> None:
    asked: list[str] = []
    with chromium() as browser, page(browser, "about:blank") as opened:
        opened.on("request", lambda request: asked.append(request.url))
        opened.goto(f"{gateway.http}/docs")
        opened.locator(".opblock-summary-path", has_text="/v1/chat/completions").first.wait_for(timeout=15_000)
        opened.locator(".opblock-summary", has_text="/health/live").first.click()
        opened.get_by_role("button", name="Try it out").click()
        opened.get_by_role("button", name="Execute").click()
        opened.locator(".live-responses-table", has_text="alive").first.wait_for(timeout=15_000)
    assert len(asked) > 4
    assert all(url.startswith((gateway.http, "data:")) for url in asked), asked
    assert ask(gateway, "/docs/").header("location") == "../docs"


@pytest.fixture(autouse=True)
def no_bug(gateway: Gateway, sim: Simulator) -> Iterator[None]:
    yield
    assert "Traceback" not in gateway.output
