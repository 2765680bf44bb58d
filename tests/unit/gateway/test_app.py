from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import structlog
from fastapi import FastAPI
from starlette.routing import Route
from tests.support.paths import FORM_PATHS, JSON_PATHS
from tests.unit.gateway.support import BODY, CHAT, JSON, ScriptedRouter, client, make_app

from lexora_contract.operations import STORED
from lexora_gateway.openai.examples import POST

POST_PATHS = (*JSON_PATHS, *FORM_PATHS, "/v1/classify-task", "/generate", "/chat")
GET_PATHS = (
    "/",
    "/v1/models",
    "/v1/models/{model_id}",
    "/v1/models/capabilities",
    "/health",
    "/health/live",
    "/health/ready",
    "/stats",
    "/stats/recent",
    "/metrics",
)


@pytest.mark.parametrize("path", ["/nope", "/v1/nope", "/v1/chat/completions/", "/sleep", "/v1/models/x/"])
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_an_unknown_path(path: str, method: str) -> None:
    async with client(make_app(ScriptedRouter())) as http:
        response = await http.request(method, path, headers={"x-request-id": "r"})
    if path.startswith("/v1/models"):
        assert response.status_code == (404 if method == "GET" else 405)
    else:
        assert response.status_code == 404
        assert response.json()["error"] == {
            "message": f"Unknown path: {path}. "
            + ("Did you mean /v1/chat/completions?" if "chat" in path else "GET / lists what is served."),
            "type": "not_found_error",
            "param": None,
            "code": "not_found",
        }
    assert response.headers["x-request-id"] == "r"


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("GET", CHAT, "POST"),
        ("PUT", "/chat", "POST"),
        ("POST", "/stats", "GET, HEAD"),
        ("PUT", "/v1/responses/resp_1", "DELETE, GET, HEAD"),
    ],
)
async def test_a_wrong_method(method: str, path: str, allow: str) -> None:
    async with client(make_app(ScriptedRouter())) as http:
        response = await http.request(method, path)
    assert (response.status_code, response.headers["allow"]) == (405, allow)
    assert response.json()["error"]["code"] == "method_not_allowed"
    assert len(response.headers["x-request-id"]) == 32


async def test_an_unread_long_body_ends_the_connection() -> None:
    async with client(make_app(ScriptedRouter())) as http:
        long = await http.post("/nope", content=b"x" * 100_000)
        short = await http.post("/nope", content=b"x")
    assert long.headers["connection"] == "close"
    assert "connection" not in short.headers


async def test_a_bug_in_a_route_is_logged_and_tells_nothing() -> None:
    router = ScriptedRouter()
    router.models = ValueError("secret")
    with structlog.testing.capture_logs() as logs:
        async with client(make_app(router)) as http:
            response = await http.get("/v1/models", headers={"x-request-id": "find-me"})
    assert response.status_code == 500
    assert "find-me" in response.json()["error"]["message"]
    assert "secret" not in response.text
    assert response.headers["x-request-id"] == "find-me"
    assert [(entry["request_id"], entry["exc_info"]) for entry in logs] == [("find-me", True)]


async def test_the_document_has_every_endpoint_with_examples() -> None:
    app = make_app(ScriptedRouter())
    async with client(app) as http:
        document = (await http.get("/openapi.json")).json()
        assert "swagger" in (await http.get("/docs")).text
    assert document["info"]["version"] == "1.2.3"
    for path in POST_PATHS:
        operation = document["paths"][path]["post"]
        [body] = operation["requestBody"]["content"].values()
        assert operation["summary"]
        if path in POST:
            assert body["example"]
            assert operation["responses"]["200"]["content"]["application/json"]["example"]
    assert set(document["paths"]) == {*POST_PATHS, *GET_PATHS, *STORED}
    names = [operation["operationId"] for item in document["paths"].values() for operation in item.values()]
    assert len(set(names)) == len(names)
    assert app.openapi() == document


def test_the_hot_routes_come_first_in_the_table() -> None:
    routes = make_app(ScriptedRouter()).router.routes[: len(POST_PATHS)]
    assert {route.path for route in routes if isinstance(route, Route)} == set(POST_PATHS)


async def test_a_hot_call_never_enters_the_middleware_stack() -> None:
    router = ScriptedRouter()
    app = make_app(router)
    async with client(app) as http:
        await http.post(CHAT, content=BODY, headers=JSON)
        assert app.middleware_stack is None
        await http.get("/health/live")
    assert app.middleware_stack is not None


async def test_middleware_of_the_users_own_sees_hot_calls_too() -> None:
    router = ScriptedRouter()
    app = make_app(router)
    seen: list[str] = []

    class Middleware:
        def __init__(self, inner: Any) -> None:
            self.inner = inner

        async def __call__(self, scope: Any, receive: Callable[[], Awaitable[Any]], send: Any) -> None:
            seen.append(scope["path"])
            await self.inner(scope, receive, send)

    app.add_middleware(Middleware)
    async with client(app) as http:
        response = await http.post(CHAT, content=BODY, headers=JSON)
    assert (response.status_code, seen) == (200, [CHAT])
    assert response.headers.get_list("x-request-id") == [router.asked[0][1].options.request_id]


async def test_the_app_may_be_mounted() -> None:
    outer = FastAPI()
    router = ScriptedRouter()
    outer.mount("/llm", make_app(router))
    async with client(outer) as http:
        response = await http.post("/llm" + CHAT, content=BODY, headers=JSON)
    assert response.status_code == 200
    assert router.asked[0][1].path == CHAT
