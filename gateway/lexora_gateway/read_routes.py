"""The GET routes: models, health, statistics, metrics. FastAPI routes, off the hot path."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from fastapi import Request, Response
from fastapi.responses import JSONResponse, RedirectResponse

from lexora.v1 import health_pb2
from lexora.v1.health_pb2 import BackendStatus, Discovery, HealthRequest, HealthResponse
from lexora.v1.models_pb2 import ListModelsResponse
from lexora.v1.recent_calls_pb2 import ListRecentCallsRequest
from lexora.v1.stats_pb2 import GetStatsRequest
from lexora_contract.access import Scope
from lexora_contract.enums import word
from lexora_contract.plain import plain, stats_plain
from lexora_contract.port import CallContext, CallFailed
from lexora_contract.rpcs import GET_STATS, HEALTH, LIST_RECENT_CALLS
from lexora_gateway.asgi_types import headers_of
from lexora_gateway.errors import Refused, invalid, model_not_found
from lexora_gateway.granted import granted
from lexora_gateway.openai import examples
from lexora_gateway.openai.models import all_models, capabilities, find_model, models_list
from lexora_gateway.parts import Parts, Surface
from lexora_gateway.request import scope_context, timeout_of
from lexora_gateway.scrape import scrape

if TYPE_CHECKING:
    from fastapi import FastAPI

# These calls answer from memory or from bounded probes; a router that is silent for longer is in trouble.
CONTROL_TIMEOUT = 10.0
# Of a number in a query; more would not fit into the contract's int32.
MAX_DIGITS = 9

_PLACES = {
    "name": "Spirrow-Lexora",
    "version": "",
    "description": "A gateway to LLM engines with OpenAI's API.",
    "api": "/v1",
    "models": "/v1/models",
    "documentation": "/docs",
    "openapi": "/openapi.json",
    "page": "/ui/",
    "health": "/health",
    "stats": "/stats",
    "metrics": "/metrics",
}
_OF_OPERATORS = ("page", "stats", "metrics")


class Control:
    """The handlers, over one router."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._router = parts.router
        self._version = parts.version

    def add_to(self, app: FastAPI) -> None:
        """Register the routes of this surface; capabilities before {model_id}, which would swallow it."""

        def get(path: str, endpoint: Callable[..., Any], summary: str, tag: str, example: Any) -> None:
            content = {"application/json": {"example": example}} if example is not None else {"text/plain": {}}
            app.add_api_route(
                path,
                endpoint,
                methods=["GET"],
                summary=summary,
                tags=[tag],
                response_model=None,
                responses={200: {"description": "OK", "content": content}},
            )

        get("/", self.home, "What this is, and where to look", "service", _PLACES)
        get("/v1/models", self.models, "The models that can be asked", "models", examples.MODELS)
        get("/v1/models/capabilities", self.capabilities, "What each is good at", "models", examples.CAPABILITIES)
        get("/v1/models/{model_id:path}", self.model, "One model", "models", examples.MODEL)
        get("/health", self.health, "State of every backend; 503 when none answers", "service", examples.HEALTH)
        get("/health/live", self.live, "The process serves", "service", {"status": "alive"})
        get("/health/ready", self.ready, "Some backend answers", "service", {"status": "ready"})
        if self._parts.surface is not Surface.CALLS:
            get("/stats", self.stats, "Counters since the start", "service", examples.STATS)
            get("/stats/recent", self.recent, "The calls that finished last; `limit` says how many", "service", examples.RECENT)
            get("/metrics", self.metrics, "Metrics for Prometheus", "service", None)

    async def home(self, request: Request) -> Response:
        """A browser is sent to the page for operators, or to the documentation; all others get the places as JSON."""
        vary = {"vary": "accept"}
        calls_only = self._parts.surface is Surface.CALLS
        if "text/html" in request.headers.get("accept", ""):
            return RedirectResponse("docs" if calls_only else "ui/", headers=vary)
        places = {name: place for name, place in _PLACES.items() if not (calls_only and name in _OF_OPERATORS)}
        return JSONResponse(places | {"version": self._version}, headers=vary)

    async def models(self, request: Request) -> Response:
        """Exactly the models that can be asked; the backend's own entry where it has one, and `backend`."""
        return JSONResponse(models_list(await self._listed(request)))

    async def capabilities(self, request: Request) -> Response:
        """Backend, capabilities and state of each model."""
        return JSONResponse(capabilities(await self._listed(request)))

    async def model(self, request: Request, model_id: str) -> Response:
        """The entry of one model; 404 `model_not_found`."""
        entry = find_model(await self._listed(request), model_id)
        if entry is None:
            raise Refused(model_not_found(model_id))
        return JSONResponse(entry)

    async def health(self, request: Request) -> Response:
        """healthy, degraded or unhealthy, over all and by backend."""
        overall, response = await self._health(request)
        backends = {} if response is None else response.backends
        states = {name: word(BackendStatus, each.status) for name, each in sorted(backends.items())}
        body = {"status": overall, "backends": states, "version": self._version}
        if response is not None:
            body["auth"] = "on" if response.credentials_needed else "off"
            if response.HasField("state"):
                body["state"] = plain(response.state)
        discovery = {name: _discovery(each.discovery) for name, each in sorted(backends.items()) if each.HasField("discovery")}
        if discovery:
            body["discovery"] = discovery
        return JSONResponse(body, 503 if overall == "unhealthy" else 200)

    async def live(self) -> Response:
        """200 as long as the process answers."""
        return JSONResponse({"status": "alive"})

    async def ready(self, request: Request) -> Response:
        """200 unless no backend answers."""
        overall, *_ = await self._health(request)
        if overall == "unhealthy":
            return JSONResponse({"status": "not ready"}, 503)
        return JSONResponse({"status": "ready"})

    async def stats(self, request: Request) -> Response:
        """The router's counters and gauges."""
        return JSONResponse(stats_plain(await self._router.unary(GET_STATS, GetStatsRequest(), self._context(request))))

    async def recent(self, request: Request) -> Response:
        """The calls that finished last, the latest first; at most `limit` (50, when absent or 0)."""
        asked = ListRecentCallsRequest(page_size=_limit(request.query_params.get("limit", "0")))
        found = await self._router.unary(LIST_RECENT_CALLS, asked, self._context(request))
        return JSONResponse({"calls": plain(found)["recent_calls"]})

    async def metrics(self, request: Request) -> Response:
        """Prometheus' text format, or OpenMetrics for scrapers that accept it; with gzip, where that is accepted."""
        try:
            await granted(self._router, Scope.OBSERVE, self._context(request))
        except CallFailed as failed:
            # A facade without its router has metrics of its own process only, which say that the router is lost.
            if failed.reason != "NO_HEALTHY_ENDPOINT" or not self._parts.metrics_alone:
                raise
        return await scrape(self._parts.metrics, request)

    async def _listed(self, request: Request) -> ListModelsResponse:
        return await all_models(self._router, self._context(request))

    async def _health(self, request: Request) -> tuple[str, HealthResponse | None]:
        try:
            response = await self._router.unary(HEALTH, HealthRequest(), self._context(request))
        except CallFailed:
            # Without its router the facade serves no call.
            return "unhealthy", None
        return _overall(response), response

    def _context(self, request: Request) -> CallContext:
        timeout = timeout_of(headers_of(request.scope), CONTROL_TIMEOUT) or CONTROL_TIMEOUT
        return scope_context(request.scope, timeout)


def _discovery(found: Discovery) -> dict[str, Any]:
    """Without names and addresses: anybody may ask for /health. `/stats` has the rest."""
    return {"endpoints": found.endpoints, "failing": bool(found.problem), "failures": found.failures}


def _limit(text: str) -> int:
    """How many calls are asked for; 0: as many as the router likes."""
    if not (text.isascii() and text.isdecimal() and len(text) <= MAX_DIGITS):
        raise Refused(invalid("limit must be a whole number, 0 or more.", "limit"))
    return int(text)


def _overall(response: HealthResponse) -> str:
    # Before the first probe nothing is known to be broken.
    unprobed = response.status == health_pb2.BACKEND_STATUS_UNSPECIFIED
    return "degraded" if unprobed else word(BackendStatus, response.status)
