"""GET /ui: a page for people who look after the gateway."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from fastapi import Request, Response
from fastapi.responses import RedirectResponse
from starlette.routing import Route

from lexora.v1.health_pb2 import HealthRequest
from lexora.v1.recent_calls_pb2 import ListRecentCallsRequest
from lexora.v1.stats_pb2 import GetStatsRequest
from lexora_contract.access import Scope
from lexora_contract.operations import CHAT
from lexora_contract.plain import plain, stats_plain
from lexora_contract.port import CallFailed
from lexora_contract.rpcs import GET_STATS, HEALTH, LIST_RECENT_CALLS
from lexora_gateway.granted import granted
from lexora_gateway.openai.models import all_models, capabilities
from lexora_gateway.request import scope_context
from lexora_gateway.static_files import POLICY, Files, headers_with
from lexora_gateway.ui.sign_in import SignIn, check_own

if TYPE_CHECKING:
    from typing import Any

    from fastapi import FastAPI

    from lexora.v1.principal_pb2 import GetPrincipalResponse
    from lexora_contract.port import CallContext
    from lexora_gateway.asgi_types import Receive, Send
    from lexora_gateway.asgi_types import Scope as AsgiScope
    from lexora_gateway.parts import Parts

FILES = Path(__file__).parent / "static"
_HEADERS = headers_with(POLICY)
# The page asks every two seconds; a later answer is of no use to it.
_STATE_TIMEOUT = 5.0
# Many people may look at once: the state takes some milliseconds of the event loop, and is made no more often than this.
_FRESH_SECONDS = 1.0
_MAX_STATES = 64  # of different callers, whose models differ


class Page:
    """The page over one router. It shows what the router's own rpcs say, and asks models through the ordinary API."""

    def __init__(self, parts: Parts) -> None:
        self._router = parts.router
        self._chat = parts.routes[CHAT]
        self._sign_in = SignIn(parts.router, parts.sessions)
        self._states: OrderedDict[bytes, tuple[float, dict[str, Any]]] = OrderedDict()  # caller -> until when, state

    def add_to(self, app: FastAPI) -> None:
        """Register the routes; none of them is part of the API, so the OpenAPI document leaves them out."""
        app.add_api_route("/ui", self.start_page, methods=["GET"], include_in_schema=False)
        app.add_api_route("/ui/state", self.state, methods=["GET"], include_in_schema=False)
        app.add_api_route("/ui/sign-in", self._sign_in.sign_in, methods=["POST"], include_in_schema=False)
        app.add_api_route("/ui/sign-out", self._sign_in.sign_out, methods=["POST"], include_in_schema=False)
        app.router.routes.append(Route("/ui/chat", _Playground(self._chat, self._sign_in), methods=["POST"]))
        app.mount("/ui", Files(FILES, _HEADERS, html=True), name="ui")

    async def start_page(self) -> Response:
        """To the page; relative, so that a proxy may serve it under another path."""
        return RedirectResponse("ui/", headers=_HEADERS)

    async def state(self, request: Request) -> Response:
        """Everything that changes, in one document: health, statistics, models and recent calls."""
        scope = self._sign_in.signed_in(request.scope)
        context = scope_context(scope, _STATE_TIMEOUT)
        try:
            caller = await granted(self._router, Scope.OBSERVE, context)
        except CallFailed as failed:
            self._sign_in.forget(request.scope, failed)
            raise
        state = await self._state(caller, context)
        shown = {"name": caller.name or caller.key, "tenant": caller.tenant, "session": scope is not request.scope}
        return Response(msgspec.json.encode({**state, "caller": shown}), media_type="application/json", headers=_HEADERS)

    async def _state(self, caller: GetPrincipalResponse, context: CallContext) -> dict[str, Any]:
        now, key = asyncio.get_running_loop().time(), caller.SerializeToString(deterministic=True)
        until, state = self._states.get(key, (0.0, {}))
        if now >= until:
            state = await self._fresh(context)
            self._states[key] = (now + _FRESH_SECONDS, state)
            self._states.move_to_end(key)
            if len(self._states) > _MAX_STATES:
                self._states.popitem(last=False)
        return state

    async def _fresh(self, context: CallContext) -> dict[str, Any]:
        router = self._router
        health, stats, models, recent = await asyncio.gather(
            router.unary(HEALTH, HealthRequest(), context),
            router.unary(GET_STATS, GetStatsRequest(), context),
            self._models(context),
            router.unary(LIST_RECENT_CALLS, ListRecentCallsRequest(), context),
        )
        return {
            "health": plain(health),
            "stats": stats_plain(stats),
            "models": models,
            "calls": plain(recent)["recent_calls"],
        }

    async def _models(self, context: CallContext) -> list[Any]:
        """The models that the caller may ask; none where it may only observe."""
        try:
            models: list[Any] = capabilities(await all_models(self._router, context))["models"]
        except CallFailed as failed:
            if failed.reason in ("PERMISSION_DENIED", "UNAUTHENTICATED"):
                return []
            raise
        return models


class _Playground:
    """A chat of the page: the ordinary route, called as the one that is signed in."""

    def __init__(self, chat: Any, sign_in: SignIn) -> None:
        self._chat = chat
        self._sign_in = sign_in

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        """Serve one request. Raises Refused (403) for one that the page did not make."""
        check_own(scope)
        signed_in = self._sign_in.signed_in(scope)
        await self._chat({**signed_in, "path": CHAT, "raw_path": CHAT.encode()}, receive, send)
