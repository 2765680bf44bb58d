from types import SimpleNamespace
from typing import Any

import pytest

from lexora_gateway import headers
from lexora_gateway.headers import passthrough_headers
from lexora_gateway.http.cors import EXPOSED, Cors

PAGE = b"https://chat.example.com"
EXPOSE = (b"access-control-expose-headers", EXPOSED.encode())
VARY = (b"vary", b"Origin")


def test_every_header_of_ours_is_shown() -> None:
    ours = {name for name in headers._RESERVED if name.startswith("x-")}
    kinds = {f"x-ratelimit-{what}-{unit}" for what in ("limit", "remaining", "reset") for unit in ("requests", "tokens")}
    assert ours | kinds | {"retry-after"} <= set(EXPOSED.split(", "))


def test_any_origin_is_the_same_answer_to_all() -> None:
    cors = Cors(["*"])
    assert cors.allowed({b"origin": PAGE}) == [(b"access-control-allow-origin", b"*"), EXPOSE]
    assert cors.allowed({b"origin": b"null"}) == [(b"access-control-allow-origin", b"*"), EXPOSE]
    assert cors.allowed({}) == []


@pytest.mark.parametrize(
    ("listed", "origin", "allowed"),
    [
        ("https://chat.example.com", PAGE, True),
        ("https://*.example.com", PAGE, True),
        ("https://*.example.com", b"https://a.b.example.com", True),
        ("https://*.example.com", b"https://example.com", False),
        ("https://*.example.com", b"https://evil.org/.example.com", False),
        ("https://*.example.com", b"https://chat.example.com:444", False),
        ("https://chat.example.com", b"http://chat.example.com", False),
        ("https://chat.example.com", b"https://chat-example.com", False),
        ("http://localhost:*", b"http://localhost:3000", True),
        ("http://localhost:*", b"http://localhost", False),
        ("null", b"null", True),
        ("https://chat.example.com", b"null", False),
    ],
)
def test_listed_origins(listed: str, origin: bytes, allowed: bool) -> None:
    found = Cors(["https://another.example.org", listed]).allowed({b"origin": origin})
    assert found == ([(b"access-control-allow-origin", origin), EXPOSE, VARY] if allowed else [VARY])


@pytest.mark.parametrize(
    ("listed", "told"),
    [(("*",), b"authorization, x-own"), (("x-lexora-priority", "Authorization"), b"x-lexora-priority, Authorization")],
)
async def test_headers_that_a_page_may_send(listed: tuple[str, ...], told: bytes) -> None:
    sent: list[Any] = []
    asked = {b"origin": PAGE, b"access-control-request-method": b"POST"}
    asked[b"access-control-request-headers"] = b"authorization, x-own"
    client: Any = SimpleNamespace(headers=asked, start=lambda *given: sent.append(given), end=lambda: None)
    await Cors([PAGE.decode()], headers=listed, max_age=5.0).preflight(client)
    [(status, headers)] = sent
    assert status == 204
    assert dict(headers)[b"access-control-allow-headers"] == told
    assert dict(headers)[b"access-control-max-age"] == b"5"


def test_what_is_a_question_ahead() -> None:
    cors, asked = Cors(["*"]), {b"origin": PAGE, b"access-control-request-method": b"POST"}
    assert cors.is_preflight(b"OPTIONS", asked)
    assert not cors.is_preflight(b"POST", asked)
    assert not cors.is_preflight(b"OPTIONS", {b"origin": PAGE})


def test_what_an_engine_says_of_pages_is_not_passed_on() -> None:
    said = (("Access-Control-Allow-Origin", "*"), ("openai-version", "1"))
    assert passthrough_headers(said) == [(b"openai-version", b"1")]
