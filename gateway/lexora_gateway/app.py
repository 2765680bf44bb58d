"""create_app: the whole facade as one FastAPI application."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Unpack

import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.routing import Route

from lexora_contract.operations import STORED, dialect_of
from lexora_contract.port import CallFailed, RouterPort
from lexora_gateway.asgi_types import headers_of
from lexora_gateway.errors import Failure, Refused, bug, from_failed, in_dialect, invalid, plain
from lexora_gateway.framework_send import FrameworkSend
from lexora_gateway.openai.docs import SECURITY_SCHEMES, path_items, stored_items
from lexora_gateway.parts import Parts, Settings, Surface, parts_of
from lexora_gateway.paths import MOVED, OF_OPERATORS, unknown_path
from lexora_gateway.read_routes import Control
from lexora_gateway.relay import StoredRelay
from lexora_gateway.request import request_id_of
from lexora_gateway.swagger import Documentation
from lexora_gateway.ui import Page

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from lexora_gateway.api_route import ApiRoute
    from lexora_gateway.asgi_types import Receive, Scope, Send

_log = structlog.get_logger("lexora_gateway")

_DESCRIPTION = "OpenAI-compatible HTTP in front of a fleet of vLLM servers and other OpenAI-compatible engines."


class GatewayApp(FastAPI):
    """A FastAPI application whose POST routes are reached by one look-up, before FastAPI's own stack.

    With middleware of the user's own installed they are reached through it, as any other route.
    """

    def __init__(self, routes: Mapping[str, ApiRoute], version: str) -> None:
        super().__init__(
            title="Spirrow-Lexora",
            description=_DESCRIPTION,
            version=version,
            redirect_slashes=False,
            docs_url=None,
            redoc_url=None,
        )
        self._routes = dict(routes)
        # What an unknown path may have been meant for.
        self.paths: Collection[str] = ()
        self.moved = False  # the routes of operators are at another port
        self.router.routes[:0] = [Route(path, each, methods=["POST"]) for path, each in self._routes.items()]

    def direct_routes(self) -> dict[bytes, ApiRoute]:
        """What a server may serve below ASGI, by path: all POST routes, or none where middleware has to see them."""
        return {} if self.user_middleware else {path.encode(): each for path, each in self._routes.items()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI entry point."""
        if scope["type"] != "http":
            await super().__call__(scope, receive, send)
            return
        if scope["method"] == "POST" and not self.user_middleware:
            route = self._routes.get(scope["path"])
            if route is not None:
                await route(scope, receive, send)
                return
        await self._other(scope, receive, send)

    def openapi(self) -> dict[str, Any]:
        """FastAPI's document with the plain ASGI routes added."""
        if self.openapi_schema is None:
            schema = super().openapi()
            stored = stored_items() if self._routes else {}
            schema["paths"] = {**path_items(self._routes), **stored, **schema["paths"]}
            schema.setdefault("components", {})["securitySchemes"] = SECURITY_SCHEMES
            schema["security"] = [{}, *({name: []} for name in SECURITY_SCHEMES)]  # {}: where none is asked for
        assert self.openapi_schema is not None
        return self.openapi_schema

    async def _other(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = headers_of(scope)
        request_id = request_id_of(headers)
        scope.setdefault("state", {})["request_id"] = request_id
        usual = FrameworkSend(send, request_id, scope["method"], headers)
        if scope["method"] == "HEAD":
            # As GET without a body (RFC 9110, 9.3.2); the server has its own scope, and writes none.
            scope = {**scope, "method": "GET"}
        try:
            await super().__call__(scope, receive, usual)
        except Exception:  # the boundary: the client gets an answer, the log gets the traceback
            _log.exception("bug", request_id=request_id, path=scope["path"])
            if not usual.started:
                failure = in_dialect(dialect_of(scope["path"]), bug(request_id), request_id)
                await Response(failure.body(), failure.status, media_type=failure.content_type.decode())(scope, receive, usual)


def create_app(router: RouterPort, **settings: Unpack[Settings]) -> FastAPI:
    """Build the facade over `router`; see Settings."""
    return app_of(parts_of(router, **settings))


def app_of(parts: Parts) -> FastAPI:
    """The parts of a facade as one application."""
    calls = parts.surface is not Surface.OPERATORS
    app = GatewayApp(parts.routes if calls else {}, parts.version)
    if calls:
        app.router.routes += _stored_routes(parts)
    Control(parts).add_to(app)
    Documentation().add_to(app)
    app.paths = {route.path for route in app.routes if isinstance(route, Route) and "{" not in route.path}
    app.moved = parts.surface is Surface.CALLS
    if not app.moved:
        Page(parts).add_to(app)
    app.add_exception_handler(CallFailed, _on_status)
    app.add_exception_handler(Refused, _on_refused)
    app.add_exception_handler(HTTPException, _on_http)
    app.add_exception_handler(RequestValidationError, _on_validation)
    app.add_exception_handler(Exception, _on_bug)
    return app


def _stored_routes(parts: Parts) -> list[Route]:
    """The routes of stored responses, whose paths have an id in them."""

    class Stored:
        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            await StoredRelay(scope, parts.router, parts.limits)(scope, receive, send)

    return [Route(path, Stored(), methods=list(row.methods)) for path, row in STORED.items()]


def _respond(request: Request, failure: Failure) -> Response:
    failure = in_dialect(dialect_of(request.url.path), failure, request.state.request_id)
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in failure.headers}
    headers["content-type"] = failure.content_type.decode("latin-1")
    return Response(failure.body(), failure.status, headers)


def _on_status(request: Request, error: Exception) -> Response:
    assert isinstance(error, CallFailed)
    return _respond(request, from_failed(error, request.state.request_id))


def _on_refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    return _respond(request, error.failure)


def _on_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    status = error.status_code
    if status == 404:
        path, app = request.url.path, request.app
        moved = app.moved and path.startswith(OF_OPERATORS)
        return _respond(request, plain(404, MOVED if moved else unknown_path(path, app.paths)))
    if status != 405:
        failure = plain(status, str(error.detail))
        failure.headers += [(name.lower().encode(), value.encode()) for name, value in (error.headers or {}).items()]
        return _respond(request, failure)
    methods = sorted((error.headers or {}).get("Allow", "").split(", "))  # of a set, whose order changes with each start
    allowed = ", ".join(method for method in methods if method != "HEAD" or "GET" not in methods)
    if request.headers.get("upgrade", "").lower() == "websocket":
        failure = plain(426, f"WebSockets are not served here: send {allowed} requests over HTTP/1.1.")
        failure.headers += [(b"upgrade", b"HTTP/1.1"), (b"connection", b"Upgrade")]
        return _respond(request, failure)
    failure = plain(405, f"Method {request.method} is not allowed here; use {allowed}.")
    failure.headers.append((b"allow", allowed.replace("GET", "GET, HEAD").encode()))
    return _respond(request, failure)


def _on_validation(request: Request, error: Exception) -> Response:
    return _respond(request, invalid(str(error)))


def _on_bug(request: Request, _: Exception) -> Response:
    return _respond(request, bug(request.state.request_id))
