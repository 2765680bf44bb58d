"""x-ratelimit-*, x-lexora-fallback and x-lexora-resumed on every answer of a call."""

from typing import Any

import pytest
from google.rpc.error_details_pb2 import ErrorInfo, QuotaFailure, RetryInfo
from tests.unit.gateway.support import (
    BODY,
    CHAT,
    HEAD,
    JSON,
    STREAMED,
    ScriptedRouter,
    client,
    failing,
    failure,
    frames,
    make_app,
    whole,
)

from lexora.v1 import receipt_pb2
from lexora.v1.errors_pb2 import UpstreamError
from lexora.v1.raw_pb2 import Header
from lexora.v1.router_pb2 import GenerateResponse, StreamResponse
from lexora_contract.answer import BucketState, Head, Hop, RateLimitState, Receipt
from lexora_contract.messages import receipt_of
from lexora_contract.port import Send
from lexora_gateway.errors import from_failed
from lexora_gateway.headers import passthrough_headers, receipt_headers
from lexora_gateway.rate_headers import rate_limit_headers

HOP = {"from_backend": "main", "to_backend": "backup", "reason": "ERROR_REASON_UPSTREAM_UNREACHABLE"}
HOPS = "main->backup;reason=UPSTREAM_UNREACHABLE"
RATES = {
    "x-ratelimit-limit-requests": "20",
    "x-ratelimit-remaining-requests": "19",
    "x-ratelimit-reset-requests": "100ms",
    "x-ratelimit-limit-tokens": "90000",
    "x-ratelimit-remaining-tokens": "0",
    "x-ratelimit-reset-tokens": "6m0s",
}
THEIRS = (("X-RateLimit-Limit-Requests", "1"), ("x-ratelimit-other", "2"))


def receipt(**more: Any) -> receipt_pb2.Receipt:
    found = receipt_pb2.Receipt(backend="backup", attempts=2, **more)
    found.rate_limit.requests.limit, found.rate_limit.requests.remaining = 20, 19
    found.rate_limit.requests.reset.nanos = 99_000_001
    found.rate_limit.tokens.limit, found.rate_limit.tokens.remaining = 90_000, -7
    found.rate_limit.tokens.reset.seconds = 360
    return found


async def ask(router: ScriptedRouter, body: bytes = BODY, path: str = CHAT) -> Any:
    async with client(make_app(router)) as http:
        return await http.post(path, content=body, headers=JSON)


def rates(response: Any) -> dict[str, str]:
    return {name: value for name, value in response.headers.items() if name.startswith("x-ratelimit-")}


@pytest.mark.parametrize(
    ("seconds", "text"), [(1e-9, b"1ms"), (0.07, b"70ms"), (1.0, b"1s"), (1.000000001, b"1.001s"), (-1.0, b"0s")]
)
def test_a_reset_is_rounded_up(seconds: float, text: bytes) -> None:
    state = RateLimitState(BucketState(1, 1, seconds), None)
    assert rate_limit_headers(state)[-1] == (b"x-ratelimit-reset-requests", text)


def test_what_is_not_limited_is_not_shown() -> None:
    state = RateLimitState(None, BucketState(5, 5, 0.0))
    assert [name for name, _ in rate_limit_headers(state)] == [
        b"x-ratelimit-limit-tokens",
        b"x-ratelimit-remaining-tokens",
        b"x-ratelimit-reset-tokens",
    ]
    assert receipt_headers(Receipt(rate_limit=RateLimitState(None, None))) == []


async def test_a_whole_answer_carries_them() -> None:
    router = ScriptedRouter()
    sent = receipt(hops=[HOP], resume_method="RESUME_METHOD_TOKEN_IDS")
    router.relays = whole(b"{}", headers=(*THEIRS, ("x-other", "3")), receipt=receipt_of(sent))
    response = await ask(router)
    assert rates(response) == RATES
    assert response.headers["x-lexora-fallback"] == HOPS
    assert response.headers["x-lexora-resumed"] == "token_ids"
    assert response.headers["x-other"] == "3"


async def test_a_streams_head_carries_them() -> None:
    router = ScriptedRouter()
    head, sent = Head(200, HEAD.content_type, THEIRS), receipt(hops=[HOP])
    router.relays = frames(b"data: 1\n\n", head=head, receipt=receipt_of(sent))
    response = await ask(router, STREAMED)
    assert rates(response) == RATES
    assert response.headers["x-lexora-fallback"] == HOPS
    assert "x-lexora-resumed" not in response.headers


@pytest.mark.parametrize("path", ["/generate", "/chat"])
@pytest.mark.parametrize("stream", [b"true", b"false"])
async def test_the_short_forms_carry_them(path: str, stream: bytes) -> None:
    router = ScriptedRouter()

    async def one(_: ScriptedRouter) -> GenerateResponse:
        return GenerateResponse(receipt=receipt())

    async def streamed(_: ScriptedRouter, send: Send) -> None:
        await send(StreamResponse(started={"receipt": receipt()}))

    router.generates, router.streams = one, streamed
    assert rates(await ask(router, b'{"prompt": "x", "stream": %s}' % stream, path)) == RATES


@pytest.mark.parametrize("body", [BODY, STREAMED])
async def test_a_refusal_carries_them_and_when_to_come_back(body: bytes) -> None:
    router = ScriptedRouter()
    hint = RetryInfo()
    hint.retry_delay.nanos = 1
    quota = QuotaFailure(violations=[QuotaFailure.Violation(subject="user:x", description="20 requests are used up")])
    refused = failure(8, "", ErrorInfo(reason="RATE_LIMITED"), quota, hint, receipt())
    router.relays = failing(refused)
    response = await ask(router, body)
    assert rates(response) == RATES
    assert (response.status_code, response.headers["retry-after"]) == (429, "1")
    assert response.json()["error"] == {
        "message": "20 requests are used up",
        "type": "rate_limit_error",
        "param": None,
        "code": "rate_limited",
    }


async def test_the_engines_own_limits_are_dropped_where_ours_are() -> None:
    router = ScriptedRouter()
    headers = [Header(name=name, value=value) for name, value in (*THEIRS, ("retry-after", "7"))]
    upstream = UpstreamError(status=429, content_type="application/json", body=b"{}", headers=headers)
    router.relays = failing(failure(8, "x", upstream, receipt()))
    response = await ask(router)
    assert (response.status_code, response.headers["retry-after"]) == (429, "7")
    assert rates(response) == RATES


async def test_without_ours_they_stay() -> None:
    router = ScriptedRouter()
    router.relays = whole(b"{}", headers=THEIRS)
    assert rates(await ask(router)) == {"x-ratelimit-limit-requests": "1", "x-ratelimit-other": "2"}


def test_an_engine_cannot_speak_for_the_gateway() -> None:
    assert passthrough_headers(tuple((f"X-Lexora-{name}", "x") for name in ("Fallback", "Resumed", "Backend"))) == []


def test_what_no_header_can_carry_is_left_out() -> None:
    assert receipt_headers(Receipt(hops=(Hop("a\r\nb: c", "d", "X"),), resumed="\n")) == []


@pytest.mark.parametrize(
    ("quota", "message"),
    [
        (QuotaFailure(), "Rate limited."),
        (QuotaFailure(violations=[QuotaFailure.Violation(subject="user:x")]), "user:x"),
    ],
)
def test_a_quota_failure_speaks_where_the_status_does_not(quota: QuotaFailure, message: str) -> None:
    failed = from_failed(failure(8, "", quota), "r")
    assert (failed.status, failed.message) == (429, message)
    assert from_failed(failure(8, "own words", quota), "r").message == "own words"
