import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
import structlog
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from tests.support.paths import FORM_PATHS, JSON_PATHS
from tests.unit.gateway.support import (
    BODY,
    CHAT,
    JSON,
    STREAMED,
    TYPED_RECEIPT,
    Client,
    ScriptedRouter,
    client,
    failing,
    failure,
    frames,
    make_app,
    until,
    whole,
)

import lexora_gateway
from lexora.v1.errors_pb2 import UpstreamError
from lexora.v1.raw_pb2 import Header

pytestmark = pytest.mark.usefixtures("both_sides")


async def ask(router: ScriptedRouter, path: str = CHAT, body: bytes = BODY, **headers: str) -> Any:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    async with client(make_app(router)) as http:
        return await http.post(path, content=body, headers=JSON | named)


def raw(**headers: bytes) -> list[tuple[bytes, bytes]]:
    return [(b"content-type", b"application/json"), *((name.encode(), value) for name, value in headers.items())]


@pytest.mark.parametrize("path", JSON_PATHS)
async def test_a_body_goes_through_as_bytes_and_comes_back_as_bytes(path: str) -> None:
    router = ScriptedRouter()
    answer = b'{"seed":9007199254740993 , "x": null}'
    router.relays = whole(answer, 201, "application/json; charset=utf-8")
    body = b'{ "seed":9007199254740993,"user":null, "odd": 1e400}'
    response = await ask(router, path, body)
    assert (response.status_code, response.content) == (201, answer)
    assert response.headers["content-type"] == "application/json; charset=utf-8"
    assert response.headers["content-length"] == str(len(answer))
    assert (response.headers["x-lexora-backend"], response.headers["x-lexora-attempts"]) == ("main", "2")
    [(name, request, _)] = router.asked
    assert name == "relay"
    assert (request.path, request.body) == (path, body)
    assert request.content_type == "application/json"
    assert request.options.request_id == response.headers["x-request-id"]


@pytest.mark.parametrize("path", FORM_PATHS)
async def test_a_form_goes_through_with_its_boundary(path: str) -> None:
    router = ScriptedRouter()
    media = "multipart/form-data; boundary=xyz"
    body = b'--xyz\r\ncontent-disposition: form-data; name="model"\r\n\r\nwhisper\r\n--xyz--\r\n'
    response = await ask(router, path, body, content_type=media)
    assert response.status_code == 200
    [(name, request, _)] = router.asked
    assert (name, request.content_type, request.body) == ("relay", media, body)


@pytest.mark.parametrize("media", ["text/plain", "", "multipart/form-data; boundary=x", "application/jsonx", "json"])
async def test_another_content_type_is_refused(media: str) -> None:
    router = ScriptedRouter()
    response = await ask(router, content_type=media)
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "content-type"
    assert not router.asked


async def test_no_content_type_is_refused() -> None:
    router = ScriptedRouter()
    async with client(make_app(router)) as http:
        assert (await http.post(CHAT, content=BODY)).status_code == 400
        response = await http.post(FORM_PATHS[0], content=BODY, headers=JSON)
    assert response.status_code == 400
    assert not router.asked


@pytest.mark.parametrize("media", ["application/json; charset=utf-8", "APPLICATION/JSON", "application/vnd.x+json;a=b"])
async def test_json_by_another_name_is_taken(media: str) -> None:
    router = ScriptedRouter()
    assert (await ask(router, content_type=media)).status_code == 200
    assert router.asked[0][1].content_type == media


@pytest.mark.parametrize("path", [CHAT, FORM_PATHS[0]])
async def test_an_empty_body_is_refused(path: str) -> None:
    router = ScriptedRouter()
    media = "multipart/form-data" if path in FORM_PATHS else "application/json"
    response = await ask(router, path, b"", content_type=media)
    assert (response.status_code, response.json()["error"]["param"]) == (400, "body")
    assert not router.asked


async def test_the_body_may_have_just_the_allowed_size() -> None:
    router = ScriptedRouter()
    assert (await ask(router, body=b"x" * 1000)).status_code == 200
    response = await ask(router, body=b"x" * 1001)
    assert (response.status_code, response.json()["error"]["code"]) == (413, "request_too_large")
    assert response.headers["connection"] == "close"
    assert len(router.asked) == 1


@pytest.mark.parametrize("given", ["a", "req-1/2", "~" * 128])
async def test_a_request_id_is_taken_and_returned(given: str) -> None:
    router = ScriptedRouter()
    response = await ask(router, x_request_id=given)
    assert response.headers["x-request-id"] == given
    assert router.asked[0][1].options.request_id == given


@pytest.mark.parametrize("given", ["", "a b", "~" * 129, "é"])
async def test_an_unfit_request_id_is_replaced(given: str) -> None:
    router = ScriptedRouter()
    async with client(make_app(router)) as http:
        response = await http.post(CHAT, content=BODY, headers=raw(**{"x-request-id": given.encode()}))
    made = response.headers["x-request-id"]
    assert len(made) == 32
    assert made == router.asked[0][1].options.request_id


CLIENT = ("x-forwarded-for", "127.0.0.1")


async def test_trace_headers_and_credentials_become_metadata() -> None:
    router = ScriptedRouter()
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    await ask(router, traceparent=parent, tracestate="a=1,b=2", authorization="Bearer secret")
    assert router.asked[0][2].metadata == (
        ("traceparent", parent),
        ("tracestate", "a=1,b=2"),
        CLIENT,
        ("authorization", "Bearer secret"),
    )
    await ask(router, tracestate="a=1")
    assert router.asked[1][2].metadata == (CLIENT,)


async def test_trace_headers_that_grpc_cannot_carry_are_left_out() -> None:
    router = ScriptedRouter()
    async with client(make_app(router)) as http:
        headers = raw(traceparent=b"x" * 3000, tracestate="ä".encode())
        await http.post(CHAT, content=BODY, headers=headers)
    assert router.asked[0][2].metadata == (CLIENT,)


async def test_the_time_limit_is_passed_on_and_capped() -> None:
    router = ScriptedRouter()
    await ask(router)
    await ask(router, x_request_timeout="2.5")
    await ask(router, x_request_timeout="99999")
    assert [context.timeout for _, _, context in router.asked] == [None, pytest.approx(2.5, 0.1), pytest.approx(3600)]
    # What reading the body took is gone.
    assert (router.asked[1][2].timeout or 0) < 2.5


@pytest.mark.parametrize("given", ["0", "-1", "soon", "nan", "inf", ""])
async def test_a_time_limit_that_is_none_is_refused(given: str) -> None:
    router = ScriptedRouter()
    response = await ask(router, x_request_timeout=given)
    assert (response.status_code, response.json()["error"]["param"]) == (400, "x-request-timeout")
    assert not router.asked


async def test_the_engines_further_headers_come_along() -> None:
    router = ScriptedRouter()
    given = {
        "x-ratelimit-remaining-requests": "3",
        "Connection": "close",
        "content-length": "1",
        "x-request-id": "theirs",
        "bad name": "1",
        "x-bad": "a\r\nb: c",
    }
    router.relays = whole(b"{}", headers=tuple(given.items()))
    response = await ask(router, x_request_id="mine")
    assert response.headers["x-ratelimit-remaining-requests"] == "3"
    assert response.headers["x-request-id"] == "mine"
    assert response.headers["content-length"] == "2"
    assert not {"connection", "bad name", "x-bad", "b"} & set(response.headers)


async def test_a_stream_is_relayed() -> None:
    router = ScriptedRouter()
    router.relays = frames(b'data: {"a":1}\n\n', b"data: 2\n\n", b"", b"data: [DONE]\n\n")
    response = await ask(router, body=STREAMED, x_request_id="r")
    assert (response.status_code, response.content) == (200, b'data: {"a":1}\n\ndata: 2\n\ndata: [DONE]\n\n')
    headers = response.headers
    assert headers["content-type"] == "text/event-stream; charset=utf-8"
    assert (headers["cache-control"], headers["x-accel-buffering"]) == ("no-cache", "no")
    assert (headers["x-request-id"], headers["x-lexora-backend"], headers["x-lexora-attempts"]) == ("r", "main", "2")
    assert "content-length" not in headers
    [(name, request, _)] = router.asked
    assert (name, request.body, request.options.request_id) == ("relay", STREAMED, "r")


async def send_raw(router: ScriptedRouter, sent: list[Any]) -> None:
    """One streamed call; the ASGI messages go to `sent` as they come."""
    requests = [{"type": "http.request", "body": STREAMED, "more_body": False}]

    async def receive() -> Any:
        return requests.pop() if requests else await never()

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": CHAT, "headers": raw()}
    await make_app(router)(scope, receive, send)


async def never() -> Any:
    return await asyncio.Event().wait()


async def test_each_message_is_sent_at_once_and_nothing_before_the_first() -> None:
    router = ScriptedRouter()
    sent: list[Any] = []

    async def script(_: ScriptedRouter, client: Client) -> None:
        client.accepted()
        client.head()
        assert not sent
        for number in range(3):
            await client.frames(b"data: %d\n\n" % number)
            await until(lambda count=number + 2: len(sent) == count)  # type: ignore[misc]
            assert sent[-1] == {"type": "http.response.body", "body": b"data: %d\n\n" % number, "more_body": True}
        assert sent[0]["type"] == "http.response.start"

    router.relays = script
    await send_raw(router, sent)
    assert len(sent) == 5
    assert sent[-1] == {"type": "http.response.body", "body": b"", "more_body": False}
    assert (b"x-lexora-backend", b"main") in sent[0]["headers"]


async def test_a_stream_without_an_answer_is_a_bug() -> None:
    router = ScriptedRouter()
    router.relays = frames()
    with structlog.testing.capture_logs() as logs:
        response = await ask(router, body=STREAMED, x_request_id="r")
    assert response.status_code == 500
    assert [(entry["request_id"], entry["log_level"]) for entry in logs] == [("r", "error")]


@pytest.mark.parametrize("body", [BODY, STREAMED])
async def test_an_error_before_the_head_is_a_status(body: bytes) -> None:
    router = ScriptedRouter()
    info = ErrorInfo(reason="INVALID_REQUEST")
    bad = BadRequest(field_violations=[BadRequest.FieldViolation(field="temperature")])
    hint = RetryInfo()
    hint.retry_delay.nanos = 1
    router.relays = failing(failure(3, "too hot", info, bad, hint, TYPED_RECEIPT))
    response = await ask(router, body=body, x_request_id="r")
    assert response.status_code == 400
    assert response.json() == {
        "error": {"message": "too hot", "type": "invalid_request_error", "param": "temperature", "code": None}
    }
    assert response.headers["retry-after"] == "1"
    assert (response.headers["x-request-id"], response.headers["x-lexora-backend"]) == ("r", "main")
    assert response.headers["x-lexora-attempts"] == "2"


@pytest.mark.parametrize("body", [BODY, STREAMED])
async def test_the_engines_own_error_comes_back_untouched(body: bytes) -> None:
    router = ScriptedRouter()
    own = b'{"error":{"message":"busy" ,"code":429}}'
    headers = [Header(name="retry-after", value="7"), Header(name="x-ratelimit-limit-requests", value="1")]
    upstream = UpstreamError(status=429, content_type="application/problem+json", body=own, headers=headers)
    router.relays = failing(failure(8, "busy", ErrorInfo(reason="UPSTREAM_ERROR"), upstream))
    response = await ask(router, body=body)
    assert (response.status_code, response.content) == (429, own)
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["retry-after"] == "7"
    assert response.headers["x-ratelimit-limit-requests"] == "1"


BROKEN = failure(14, "the engine died", ErrorInfo(reason="UPSTREAM_BROKEN"))
ENGINE_EVENT = b'{"error":{"message":"worker killed","code":500}}'
ENGINE_BROKE = failure(14, "x", ErrorInfo(reason="UPSTREAM_BROKEN"), UpstreamError(status=0, body=ENGINE_EVENT))
OWN_EVENTS = {
    CHAT: (b"", {"error": {"message": "the engine died", "type": "api_error", "param": None, "code": "upstream_broken"}}),
    "/v1/messages": (
        b"event: error\n",
        {"type": "error", "error": {"type": "api_error", "message": "the engine died"}},
    ),
    "/v1/responses": (
        b"event: error\n",
        {
            "type": "error",
            "code": "upstream_broken",
            "message": "the engine died",
            "param": None,
            "sequence_number": 0,
        },
    ),
}


@pytest.mark.parametrize("path", list(OWN_EVENTS))
async def test_an_error_after_the_head_is_the_last_event(path: str) -> None:
    router = ScriptedRouter()
    router.relays = frames(b"data: 1\n\n", then=BROKEN)
    response = await ask(router, path, STREAMED)
    prefix, event = OWN_EVENTS[path]
    first, _, last = response.content.partition(b"\n\n")
    assert (response.status_code, first) == (200, b"data: 1")
    assert last.startswith(prefix + b"data: ")
    assert last.endswith(b"\n\n")
    assert json.loads(last[len(prefix) + 6 :]) == event
    assert b"[DONE]" not in response.content


@pytest.mark.parametrize("path", list(OWN_EVENTS))
async def test_the_engines_own_error_event_is_sent_untouched(path: str) -> None:
    router = ScriptedRouter()
    router.relays = frames(b"data: 1\n\n", then=ENGINE_BROKE)
    response = await ask(router, path, STREAMED)
    assert response.content == b"data: 1\n\n" + OWN_EVENTS[path][0] + b"data: " + ENGINE_EVENT + b"\n\n"


async def test_a_failed_stream_ends_its_body_properly() -> None:
    router = ScriptedRouter()
    router.relays = frames(b"data: 1\n\n", then=BROKEN)
    sent: list[Any] = []
    await send_raw(router, sent)
    assert sent[-2]["body"].startswith(b"data: {")
    assert sent[-1] == {"type": "http.response.body", "body": b"", "more_body": False}


@pytest.mark.parametrize("body", [BODY, STREAMED])
async def test_a_bug_is_logged_and_tells_nothing(body: bytes) -> None:
    router = ScriptedRouter()
    router.relays = failing(ValueError("secret"))
    with structlog.testing.capture_logs() as logs:
        response = await ask(router, body=body, x_request_id="find-me")
    assert response.status_code == 500
    assert response.json()["error"]["type"] == "server_error"
    assert "find-me" in response.json()["error"]["message"]
    assert b"secret" not in response.content
    assert (logs[0]["request_id"], logs[0]["exc_info"]) == ("find-me", True)


async def test_a_bug_after_the_head_is_an_event() -> None:
    router = ScriptedRouter()
    router.relays = frames(b"data: 1\n\n", then=ValueError("secret"))
    with structlog.testing.capture_logs() as logs:
        response = await ask(router, body=STREAMED)
    assert response.content.startswith(b'data: 1\n\ndata: {"error":')
    assert b"secret" not in response.content
    assert len(logs) == 1


def test_the_facade_knows_neither_router_nor_command() -> None:
    sources = Path(lexora_gateway.__file__).parent.rglob("*.py")
    text = "".join(source.read_text() for source in sources)
    assert not any(name in text for name in ("lexora_router", "lexora_sim", "lexora_cli"))
