"""GET /ui: a page for people who look after the gateway."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from fastapi import Request, Response
from fastapi.responses import RedirectResponse

from lexora.v1.health_pb2 import HealthRequest
from lexora.v1.recent_calls_pb2 import ListRecentCallsRequest
from lexora.v1.stats_pb2 import GetStatsRequest
from lexora_contract.plain import plain, stats_plain
from lexora_contract.rpcs import GET_STATS, HEALTH, LIST_RECENT_CALLS
from lexora_gateway.openai.models import all_models, capabilities
from lexora_gateway.request import scope_context
from lexora_gateway.static_files import POLICY, Files, headers_with

if TYPE_CHECKING:
    from fastapi import FastAPI

    from lexora_contract.port import CallContext, RouterPort

FILES = Path(__file__).parent / "static"
_HEADERS = headers_with(POLICY)
# The page asks every two seconds; a later answer is of no use to it.
_STATE_TIMEOUT = 5.0
# Many people may look at once: the state takes some milliseconds of the event loop, and is made no more often than this.
_FRESH_SECONDS = 1.0


class Page:
    """The page over one router. It shows what the router's own rpcs say, and asks models through the ordinary API."""

    def __init__(self, router: RouterPort) -> None:
        self._router = router
        self._state = b""
        self._stale_at = 0.0

    def add_to(self, app: FastAPI) -> None:
        """Register the routes; none of them is part of the API, so the OpenAPI document leaves them out."""
        app.add_api_route("/ui", self.entrance, methods=["GET"], include_in_schema=False)
        app.add_api_route("/ui/state", self.state, methods=["GET"], include_in_schema=False)
        app.mount("/ui", Files(FILES, _HEADERS, html=True), name="ui")

    async def entrance(self) -> Response:
        """To the page; relative, so that a proxy may serve it under another path."""
        return RedirectResponse("ui/", headers=_HEADERS)

    async def state(self, request: Request) -> Response:
        """Everything that changes, in one document: health, statistics, models and recent calls."""
        now = asyncio.get_running_loop().time()
        if now >= self._stale_at:
            self._state = await self._fresh(scope_context(request.scope, _STATE_TIMEOUT))
            self._stale_at = now + _FRESH_SECONDS
        return Response(self._state, media_type="application/json", headers=_HEADERS)

    async def _fresh(self, context: CallContext) -> bytes:
        router = self._router
        health, stats, models, recent = await asyncio.gather(
            router.unary(HEALTH, HealthRequest(), context),
            router.unary(GET_STATS, GetStatsRequest(), context),
            all_models(router, context),
            router.unary(LIST_RECENT_CALLS, ListRecentCallsRequest(), context),
        )
        state = {
            "health": plain(health),
            "stats": stats_plain(stats),
            "models": capabilities(models)["models"],
            "calls": plain(recent)["recent_calls"],
        }
        return msgspec.json.encode(state)
