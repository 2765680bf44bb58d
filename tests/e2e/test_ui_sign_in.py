"""Signing in to the operator's page: in a real browser, and by everything that a browser of a victim could be made to send."""

import socket
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from lexora_contract.access import Scope
from lexora_router.access.key_format import NewKey, new_key
from tests.e2e.conftest import MODEL
from tests.support.browser import chromium, needs_chromium, page
from tests.support.keys import add_key, change_key
from tests.support.servers import Gateway, Simulator, calm_config

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

WAIT = 15_000  # milliseconds
OWN = {"x-lexora-ui": "1"}
HI = {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2}
REFUSED = ("status of 401", "status of 403", "status of 429")  # what the browser writes into its console


@pytest.fixture(scope="module")
def keys_file(folder: Path) -> Path:
    return folder / "keys.jsonl"


@pytest.fixture(scope="module")
def key(keys_file: Path) -> NewKey:
    return add_key(keys_file, name="Olga", tenant="platform", scopes=(Scope.OBSERVE, Scope.CALL))


@pytest.fixture(scope="module")
def caller(keys_file: Path) -> NewKey:
    return add_key(keys_file, name="batch", scopes=(Scope.CALL,))


@pytest.fixture(scope="module")
def other(keys_file: Path) -> NewKey:
    return add_key(keys_file, name="Oleg", scopes=(Scope.OBSERVE,))


@pytest.fixture(scope="module")
def gateway(sim: Simulator, keys_file: Path, key: NewKey, caller: NewKey, other: NewKey) -> Iterator[Gateway]:
    config = calm_config(main={"url": sim.url, "models": [MODEL]})
    config["auth"] = {"mode": "keys", "keys_file": str(keys_file)}
    config["server"]["cors"] = {"allow_origins": ["*"]}
    with Gateway(config, keys_file.parent) as process:
        yield process


@pytest.fixture
def http(gateway: Gateway) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=gateway.http, timeout=10, verify=False) as client:
        yield client


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    with chromium() as opened:
        yield opened


def said(opened: "Page", selector: str, text: str) -> None:
    opened.locator(selector, has_text=text).first.wait_for(timeout=WAIT)


def sign_in(opened: "Page", key: NewKey) -> None:
    opened.locator("#key").wait_for(timeout=WAIT)
    opened.fill("#key", key.text)
    opened.press("#key", "Enter")


@needs_chromium
def test_a_key_opens_the_page_and_the_playground_calls_as_that_key(
    gateway: Gateway, browser: "Browser", key: NewKey, caller: NewKey, other: NewKey
) -> None:
    with page(browser, f"{gateway.http}/ui/#playground", but=REFUSED) as opened:
        said(opened, "#sign-in h1", "Sign in")
        assert opened.locator("#playground").is_hidden()
        size = opened.viewport_size
        assert size is not None
        opened.set_viewport_size({"width": 320, "height": 740})
        assert opened.evaluate("document.documentElement.scrollWidth") <= 320
        opened.set_viewport_size(size)
        sign_in(opened, caller)
        said(opened, "#sign-in-trouble", "needs the scope `observe`")
        sign_in(opened, new_key())
        said(opened, "#sign-in-trouble", "does not hold here")
        assert opened.input_value("#key") == ""
        sign_in(opened, key)
        said(opened, "#caller", "Olga of platform")
        assert opened.locator("#sign-in").is_hidden()
        opened.locator(f"#model option[value='{MODEL}']").wait_for(state="attached", timeout=WAIT)
        opened.select_option("#model", MODEL)
        opened.fill("#max-tokens", "8")
        opened.fill("#prompt", "Hello")
        opened.press("#prompt", "Enter")
        said(opened, "#cost dd", "8 out")
        opened.click("nav a[href='#calls']")
        said(opened, "#calls tr:has-text('stream') td", "main")
        stats = httpx.get(f"{gateway.http}/stats", headers={"x-api-key": key.text}, verify=False).json()
        assert stats["by_tenant"]["platform"]["total"] == 1
        (cookie,) = opened.context.cookies()
        assert (cookie["httpOnly"], cookie["sameSite"], cookie["path"]) == (True, "Strict", "/ui")
        assert key.text not in opened.content()
        assert key.text not in str(cookie)
        assert (
            opened.evaluate("document.cookie + JSON.stringify({...localStorage}) + JSON.stringify({...sessionStorage})")
            == "{}{}"
        )
        opened.reload()
        said(opened, "#caller", "Olga of platform")
        opened.set_viewport_size({"width": 320, "height": 740})
        assert opened.evaluate("document.documentElement.scrollWidth") <= 320
        opened.click("#sign-out")
        opened.set_viewport_size(size)
        said(opened, "#sign-in h1", "Sign in")
        assert opened.context.cookies() == []
        assert "platform" not in (opened.text_content("main") or "")
        # A key that is revoked signs its page out.
        sign_in(opened, other)
        said(opened, "#caller", "Oleg")
        change_key(gateway.config_file.parent / "keys.jsonl", other, revoked=datetime.now(UTC))
        said(opened, "#sign-in h1", "Sign in")
    assert key.text not in gateway.output


@needs_chromium
def test_a_page_of_another_origin_gets_nothing_and_does_nothing(
    gateway: Gateway, browser: "Browser", key: NewKey, sim: Simulator
) -> None:
    with page(browser, f"{gateway.http}/ui/", but=("status of 401", "CORS", "Failed to load", "net::ERR")) as opened:
        sign_in(opened, key)
        said(opened, "#caller", "Olga")
        sim.clear()
        hostile = opened.context.new_page()
        hostile.goto(f"{gateway.http.replace('127.0.0.1', 'localhost')}/docs")  # another site, and another origin
        script = """async ([url, headers, credentials]) => {
            const options = { method: "POST", headers, credentials, body: "{}" };
            try { return (await fetch(url, options)).status; } catch { return "refused"; }
        }"""
        for path in ("/ui/chat", "/ui/sign-out"):
            for credentials in ("include", "omit"):
                for headers in ({}, OWN, {"content-type": "text/plain"}):
                    found = hostile.evaluate(script, [gateway.http + path, headers, credentials])
                    assert found in (403, "refused"), (path, headers, found)
        hostile.close()
        opened.reload()
        said(opened, "#caller", "Olga")
        assert not sim.posts()


def signed_in(http: httpx.Client, key: NewKey, **headers: str) -> httpx.Response:
    answer = http.post("/ui/sign-in", json={"key": key.text}, headers=OWN | headers).raise_for_status()
    http.cookies.clear()  # tests send the cookie where it belongs, and where not
    return answer


def test_the_cookie_stands_for_the_key_under_ui_only(gateway: Gateway, http: httpx.Client, key: NewKey) -> None:
    cookie = signed_in(http, key).headers["set-cookie"]
    assert cookie.endswith("; Max-Age=43200; HttpOnly; SameSite=Strict")
    word = cookie.partition(";")[0]
    assert signed_in(http, key, **{"x-forwarded-proto": "https"}).headers["set-cookie"].endswith("; Secure")
    assert word.startswith(f"lexora_ui_{gateway.http.rpartition(':')[2]}=")  # another port of the host has another one
    state = http.get("/ui/state", headers={"cookie": f'theme={{"dark": [1]}}; =; odd; {word}; more="1'})
    assert state.json()["caller"] == {"name": "Olga", "tenant": "platform", "session": True}
    for path in ("/stats", "/metrics", "/v1/models"):
        assert http.get(path, headers={"cookie": word}).status_code == 401
    assert http.post("/v1/chat/completions", json=HI, headers={"cookie": word} | OWN).status_code == 401
    assert http.post("/ui/chat", json=HI, headers={"cookie": word} | OWN).status_code == 200
    # Credentials of its own go before the session.
    assert http.get("/ui/state", headers={"cookie": word, "x-api-key": "sk-lx-wrong"}).status_code == 401
    # What the session has made is not shown to others, not even for the second that it is fresh.
    assert http.get("/ui/state", headers={"cookie": ""}).status_code == 401
    assert http.post("/ui/sign-out", headers={"cookie": word} | OWN).status_code == 204
    assert http.get("/ui/state", headers={"cookie": word}).status_code == 401


@pytest.mark.parametrize("path", ["/ui/sign-in", "/ui/sign-out", "/ui/chat"])
@pytest.mark.parametrize(
    "headers",
    [{}, {"x-lexora-ui": "0"}, OWN | {"sec-fetch-site": "cross-site"}, OWN | {"sec-fetch-site": "same-site"}],
)
def test_what_the_page_did_not_send_is_refused(http: httpx.Client, key: NewKey, path: str, headers: dict[str, str]) -> None:
    word = signed_in(http, key).headers["set-cookie"].partition(";")[0]
    answer = http.post(path, json={"key": key.text} | HI, headers={"cookie": word} | headers)
    assert (answer.status_code, "the page at /ui only" in answer.json()["error"]["message"]) == (403, True)
    assert "set-cookie" not in answer.headers
    assert http.get("/ui/state", headers={"cookie": word}).status_code == 200


@pytest.mark.parametrize(
    "body", [b"", b"[]", b'{"key": 7}', b'{"key": ""}', b'{"key": "a b"}', b'{"key": "\xc3\xa9"}', b"{" * 40_000]
)
def test_a_malformed_attempt_is_refused(http: httpx.Client, body: bytes) -> None:
    answer = http.post("/ui/sign-in", content=body, headers=OWN)
    assert answer.status_code == (413 if len(body) > 32 * 1024 else 400)


def test_an_attempt_whose_body_does_not_arrive_ends(gateway: Gateway) -> None:
    head = b"POST /ui/sign-in HTTP/1.1\r\nhost: x\r\nx-lexora-ui: 1\r\ncontent-length: 30\r\n\r\n{"
    host, _, port = gateway.http.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), 30) as connection:
        connection.sendall(head)
        assert b" 408 " in connection.recv(65536)
        while connection.recv(65536):
            pass


def test_attempts_are_limited_and_a_good_key_is_not(gateway: Gateway, key: NewKey) -> None:
    transport = httpx.HTTPTransport(local_address="127.0.9.9", verify=False)
    with httpx.Client(base_url=gateway.http, transport=transport) as http:
        found: list[Any] = [http.post("/ui/sign-in", json={"key": new_key().text}, headers=OWN).status_code for _ in range(30)]
        assert set(found) == {401, 429}
        assert found.count(429) >= 5
        assert signed_in(http, key).status_code == 204
