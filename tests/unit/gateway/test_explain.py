"""x-lexora-explain: the explanation in place of the answer, on every endpoint that an engine serves."""

import json
from typing import Any

import pytest
from google.rpc import code_pb2
from google.rpc.error_details_pb2 import ErrorInfo
from tests.support.paths import FORM_PATHS, JSON_PATHS
from tests.unit.gateway.support import BODY, CHAT, JSON, STREAMED, ScriptedRouter, client, failure, make_app

from lexora.v1.explain_pb2 import EndpointExplanation, ExplainResponse, TargetExplanation, TenantExplanation
from lexora.v1.health_pb2 import BACKEND_STATUS_DEGRADED, BREAKER_STATE_HALF_OPEN
from lexora.v1.options_pb2 import FALLBACK_POLICY_NEVER

pytestmark = pytest.mark.usefixtures("both_sides")

FORM = b'--b\r\ncontent-disposition: form-data; name="model"\r\n\r\nm\r\n--b--\r\n'
EXPLAIN = {"x-lexora-explain": "1"}


async def ask(router: ScriptedRouter, path: str = CHAT, body: bytes = BODY, headers: dict[str, str] | None = None) -> Any:
    async with client(make_app(router, default_model="default-m")) as http:
        return await http.post(path, content=body, headers=JSON | EXPLAIN | (headers or {}))


def answer() -> ExplainResponse:
    endpoint = EndpointExplanation(address="http://e:1", score=0.5, eligible=True, breaker=BREAKER_STATE_HALF_OPEN, weight=1)
    target = TargetExplanation(backend="main", status=BACKEND_STATUS_DEGRADED, verdict="VERDICT_DISPATCH", endpoints=[endpoint])
    tenant = TenantExplanation(user="bob", allowed=True)
    tenant.rate_limit.requests.limit = 20
    tenant.rate_limit.requests.reset.FromMilliseconds(100)
    return ExplainResponse(summary=["At once."], verdict="VERDICT_DISPATCH", tenant=tenant, targets=[target])


@pytest.mark.parametrize(
    ("path", "body", "media"),
    [
        *((path, BODY, "application/json") for path in JSON_PATHS),
        *((path, FORM, "multipart/form-data; boundary=b") for path in FORM_PATHS),
    ],
)
async def test_a_relayed_call_is_explained_and_not_made(path: str, body: bytes, media: str) -> None:
    router = ScriptedRouter()
    router.explanation = answer()
    response = await ask(router, path, body, {"content-type": media})
    assert (response.status_code, response.headers["x-lexora-explain"]) == (200, "1")
    assert response.headers["content-type"] == "application/json"
    assert "x-request-id" in response.headers
    ((rpc, request, _),) = router.asked
    assert (rpc, request.call.raw.path, request.call.raw.body, request.call.raw.content_type) == ("explain", path, body, media)


async def test_the_answer_is_json_with_words_and_seconds() -> None:
    router = ScriptedRouter()
    router.explanation = answer()
    found = (await ask(router)).json()
    assert found["summary"] == ["At once."]
    (target,) = found["targets"]
    assert (target["status"], target["endpoints"][0]["breaker"], target["wait_seconds"]) == ("degraded", "half_open", None)
    assert found["tenant"]["rate_limit"] == {
        "requests": {"limit": 20, "remaining": 0, "reset": 0.1},
        "tokens": None,
        "concurrent": None,
    }


async def test_the_call_s_own_headers_count() -> None:
    router = ScriptedRouter()
    headers = {
        "x-lexora-priority": "high",
        "x-lexora-fallback": "never",
        "x-request-id": "mine",
        "x-request-timeout": "7",
        "traceparent": "00-a",
    }
    response = await ask(router, CHAT, STREAMED, headers)
    ((_, request, context),) = router.asked
    assert response.headers["x-request-id"] == "mine"
    assert (request.call.options.priority, request.call.options.fallback, request.call.options.request_id) == (
        100,
        FALLBACK_POLICY_NEVER,
        "mine",
    )
    assert 6.0 < context.timeout <= 7.0
    assert context.metadata == (("traceparent", "00-a"), ("x-forwarded-for", "127.0.0.1"))


@pytest.mark.parametrize("streamed", [False, True])
async def test_the_short_forms_are_explained_in_typed_form(streamed: bool) -> None:
    router = ScriptedRouter()
    body = {"prompt": "Once", "user": "bob", "stream": streamed} | (
        {"stream_options": {"include_usage": True}} if streamed else {}
    )
    for path in ("/generate", "/chat"):
        assert (await ask(router, path, json.dumps(body).encode())).status_code == 200
    generate, chat = (question.call for _, question, _ in router.asked)
    assert (generate.completion.text, generate.completion.model, generate.options.user) == ("Once", "default-m", "bob")
    assert (chat.chat.messages[0].text, chat.chat.model, chat.options.user) == ("Once", "default-m", "bob")
    assert generate.completion.sampling.max_tokens == 1000


@pytest.mark.parametrize("value", ["", "0", "true", "yes", "11"])
@pytest.mark.parametrize("path", [CHAT, "/generate", "/v1/classify-task"])
async def test_any_other_value_is_refused_by_name(path: str, value: str) -> None:
    router = ScriptedRouter()
    response = await ask(router, path, b'{"prompt": "Once", "model": "m"}', {"x-lexora-explain": value})
    assert (response.status_code, response.json()["error"]["param"]) == (400, "x-lexora-explain")
    assert not router.asked


async def test_what_goes_to_no_engine_cannot_be_explained() -> None:
    router = ScriptedRouter()
    response = await ask(router, "/v1/classify-task", b'{"task_description": "Write"}')
    assert (response.status_code, response.json()["error"]["param"]) == (400, "x-lexora-explain")
    assert not router.asked


@pytest.mark.parametrize(
    ("path", "body", "headers"),
    [
        (CHAT, b"", {}),
        (CHAT, BODY, {"content-type": "text/plain"}),
        (CHAT, BODY, {"x-lexora-priority": "urgent"}),
        (CHAT, b"x" * 1001, {}),
        ("/generate", b"{", {}),
        ("/generate", b'{"prompt": 7}', {}),
        ("/chat", b"{}", {}),
    ],
)
async def test_a_malformed_request_gets_the_answer_that_the_call_would_get(
    path: str, body: bytes, headers: dict[str, str]
) -> None:
    router = ScriptedRouter()
    explained = await ask(router, path, body, headers)
    assert not router.counted, "to ask is free"
    async with client(make_app(router)) as http:
        made = await http.post(path, content=body, headers=JSON | headers)
    assert not router.asked
    assert explained.status_code >= 400
    assert (explained.status_code, explained.content) == (made.status_code, made.content)
    assert "x-lexora-explain" not in explained.headers


async def test_an_error_of_the_router_is_the_answer() -> None:
    router = ScriptedRouter()
    router.explanation = failure(code_pb2.INVALID_ARGUMENT, "messages is missing", ErrorInfo(reason="INVALID_REQUEST"))
    response = await ask(router)
    assert (response.status_code, response.json()["error"]["message"]) == (400, "messages is missing")
