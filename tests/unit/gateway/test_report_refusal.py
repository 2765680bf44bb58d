"""What the facade refuses by itself counts against the limit of the user that it names, and says where that one stands."""

from typing import Any

import pytest
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo
from tests.unit.gateway.support import CHAT, JSON, ScriptedRouter, client, connected, failure, make_app, post, serving
from tests.unit.gateway.test_rate_headers import RATES, rates, receipt

pytestmark = pytest.mark.usefixtures("both_sides")

BODY = b'{"model": "m", "messages": [], "user": "alice"}'


def limited(reason: str = "", *details: Any) -> ScriptedRouter:
    """A router that counts, or refuses for this reason, and says where the user stands."""
    router = ScriptedRouter()
    router.refusal = failure(8, "said by the router", ErrorInfo(reason=reason), *details, receipt()) if reason else receipt()
    return router


async def ask(router: ScriptedRouter, body: bytes, path: str = CHAT, **headers: str) -> Any:
    async with client(make_app(router)) as http:
        return await http.post(path, content=body, headers=JSON | {key.replace("_", "-"): headers[key] for key in headers})


@pytest.mark.parametrize(
    ("path", "body", "headers", "status", "user"),
    [
        (CHAT, BODY, {"x_lexora_priority": "highest"}, 400, "alice"),
        (CHAT, BODY, {"content_type": "text/plain"}, 400, "alice"),
        (CHAT, BODY, {"x_request_timeout": "soon"}, 400, ""),  # before the body was read
        (CHAT, b"", {}, 400, ""),
        (CHAT, b"x" * 1001, {}, 413, ""),
        ("/generate", b'{"user": "alice"}', {}, 400, "alice"),
        ("/chat", b'{"prompt": "x", "temperature": "hot", "user": "alice"}', {}, 400, "alice"),
        ("/chat", b'{"user": 5}', {}, 400, ""),
        ("/chat", b'{"user": "al', {}, 400, ""),
        ("/chat", b'{"user": "' + b"u" * 500 + b'"}', {}, 400, "u" * 500),
        ("/chat", b"[" * 900, {}, 400, ""),
        ("/v1/classify-task", b'{"user": "alice"}', {}, 400, "alice"),
        ("/v1/audio/transcriptions", BODY, {}, 400, "alice"),
    ],
)
async def test_a_refused_request_is_counted(path: str, body: bytes, headers: dict[str, str], status: int, user: str) -> None:
    router = limited()
    response = await ask(router, body, path, x_request_id="id-1", **headers)
    assert response.status_code == status
    assert "said by the router" not in response.text
    assert rates(response) == RATES
    [counted] = router.counted
    assert (counted.options.request_id, counted.options.user, counted.http_status) == ("id-1", user, status)
    assert counted.message.startswith(f"The facade answered {status}: ")
    assert len(counted.message) <= 400
    assert router.asked == []


async def test_over_the_limit_the_answer_is_429_and_the_unread_body_ends_the_connection() -> None:
    hint = RetryInfo()
    hint.retry_delay.seconds = 7
    router = limited("RATE_LIMITED", hint)
    response = await ask(router, b"", x_request_id="id-1")
    assert (response.status_code, response.json()["error"]["code"], response.headers["retry-after"]) == (
        429,
        "rate_limited",
        "7",
    )
    assert rates(response) == RATES
    async with serving(make_app(router)) as port, connected(port) as (reader, writer):
        writer.write(post(CHAT, b"x" * 10).replace(b"content-length: 10", b"content-length: 100000"))
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 429 ")
        assert b"connection: close" in head.lower()


@pytest.mark.parametrize("announced", [b"content-length: 100000", b"transfer-encoding: chunked"])
async def test_what_is_sure_to_be_refused_is_refused_before_its_body_is_read(announced: bytes) -> None:
    hint = RetryInfo()
    hint.retry_delay.seconds = 9
    router = limited()
    router.foreseen = failure(8, "full", ErrorInfo(reason="QUEUE_FULL"), hint)
    async with serving(make_app(router, max_body_bytes=10**6)) as port, connected(port) as (reader, writer):
        writer.write(post(CHAT, b"").replace(b"content-length: 0", announced))
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        assert head.startswith(b"http/1.1 429 ")
        assert b"\r\nconnection: close\r\n" in head
        assert b"\r\nretry-after: 9\r\n" in head
        assert b"queue_full" in await reader.read()
    assert (len(router.foresaw), router.counted, router.asked) == (1, [], [])  # the router has counted it


async def test_a_router_that_cannot_be_asked_changes_nothing() -> None:
    router = ScriptedRouter()
    router.refusal = failure(14, "gone")
    response = await ask(router, b"")
    assert (response.status_code, rates(response)) == (400, {})


async def test_what_is_no_call_is_not_counted() -> None:
    router = limited()
    async with client(make_app(router)) as http:
        assert (await http.get("/nowhere")).status_code == 404
        assert (await http.get(CHAT)).status_code == 405
        assert (await http.post("/nowhere", content=b"{}")).status_code == 404
    assert router.counted == []
