"""What the facade is made of: its settings, and the routes that a connection can serve by itself."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Required, TypedDict, Unpack

from lexora_contract.operations import CLASSIFY_TASK
from lexora_gateway.buffered import MAX_BYTES, BufferedBytes
from lexora_gateway.classify import ClassifyTask
from lexora_gateway.http.client_timeouts import PATIENCE, Patience
from lexora_gateway.page_sessions import Sessions
from lexora_gateway.relay import relays
from lexora_gateway.request import Limits, nearest, trust_none
from lexora_gateway.short_forms import Chat, Generate

if TYPE_CHECKING:
    from lexora_contract.port import RouterPort
    from lexora_gateway.api_route import ApiRoute

# A scraper's Accept -> body and content type.
Metrics = Callable[[str], Awaitable[tuple[bytes, str]]]


class Surface(Enum):
    """What one port serves: everything, all but what is for operators, or that alone."""

    ALL = "all"
    CALLS = "calls"
    OPERATORS = "operators"


class Settings(TypedDict, total=False):
    """How the facade serves.

    `max_body_bytes` bounds every request's body, `reading` all that are being read at a time; `max_request_timeout` (seconds)
    caps x-request-timeout; `metrics` serves /metrics; `default_model` serves /generate and /chat when they name none; of
    `patience` the silence inside a body counts here, the rest in `server_config`; `stream_keepalive` is the longest silence
    of a stream, in seconds, None for any; `trusts` says which addresses are proxies whose x-lexora-user counts, `client_of`
    gives the client's address behind them, from an X-Forwarded-For that ends with the nearest one; `surface` is what it
    serves (everything); `sessions` are those of the page; with `metrics_alone` /metrics is served while the router cannot be
    reached to ask about credentials.
    """

    version: Required[str]
    max_body_bytes: Required[int]
    metrics: Required[Metrics]
    max_request_timeout: float
    default_model: str | None
    patience: Patience
    reading: BufferedBytes | None
    stream_keepalive: float | None
    trusts: Callable[[str], bool]
    client_of: Callable[[str], str]
    surface: Surface
    metrics_alone: bool
    sessions: Sessions


@dataclass(frozen=True, slots=True)
class Parts:
    """The routes by path, all of them POST, and what the other routes need."""

    router: RouterPort
    version: str
    metrics: Metrics
    limits: Limits
    routes: dict[str, ApiRoute]
    surface: Surface = Surface.ALL
    metrics_alone: bool = False
    sessions: Sessions = field(default_factory=Sessions)


def parts_of(router: RouterPort, **settings: Unpack[Settings]) -> Parts:
    """The parts of a facade over `router`."""
    most = settings["max_body_bytes"]
    limits = Limits(
        most,
        settings.get("max_request_timeout", 3600),
        settings.get("patience", PATIENCE).body,
        settings.get("reading") or BufferedBytes(MAX_BYTES, most),
        settings.get("stream_keepalive"),
        settings.get("trusts", trust_none),
        settings.get("client_of", nearest),
    )
    default_model = settings.get("default_model")
    routes = relays(router, limits)
    routes[CLASSIFY_TASK] = ClassifyTask(router, limits)
    routes["/generate"] = Generate(router, limits, default_model)
    routes["/chat"] = Chat(router, limits, default_model)
    surface, alone = settings.get("surface", Surface.ALL), settings.get("metrics_alone", False)
    sessions = settings.get("sessions", Sessions())
    return Parts(router, settings["version"], settings["metrics"], limits, routes, surface, alone, sessions)
