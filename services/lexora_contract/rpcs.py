"""The rpcs of the contract that ask one thing and get one answer: a row each, by which a transport calls them."""

import re
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from google.protobuf.message import Message

from lexora.v1 import (
    classify_pb2,
    embed_pb2,
    explain_pb2,
    health_pb2,
    models_pb2,
    recent_pb2,
    reload_pb2,
    router_pb2,
    stats_pb2,
)

Request = TypeVar("Request", bound=Message)
Response = TypeVar("Response", bound=Message)

ROUTER = "lexora.v1.RouterService"
_WORD = re.compile("(?<=[a-z])(?=[A-Z])")


@dataclass(frozen=True, slots=True)
class Rpc(Generic[Request, Response]):
    """One rpc. `method` is the name of what serves it in Python, `path` its name on the wire."""

    service: str
    name: str
    request: type[Request]
    response: type[Response]
    method: str = field(init=False)
    path: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "method", _WORD.sub("_", self.name).lower())
        object.__setattr__(self, "path", f"/{self.service}/{self.name}")


GENERATE = Rpc(ROUTER, "Generate", router_pb2.GenerateRequest, router_pb2.GenerateResponse)
EMBED = Rpc(ROUTER, "Embed", embed_pb2.EmbedRequest, embed_pb2.EmbedResponse)
CLASSIFY = Rpc(ROUTER, "Classify", classify_pb2.ClassifyRequest, classify_pb2.ClassifyResponse)
LIST_MODELS = Rpc(ROUTER, "ListModels", models_pb2.ListModelsRequest, models_pb2.ListModelsResponse)
HEALTH = Rpc(ROUTER, "Health", health_pb2.HealthRequest, health_pb2.HealthResponse)
EXPLAIN = Rpc(ROUTER, "Explain", explain_pb2.ExplainRequest, explain_pb2.ExplainResponse)
RECENT_CALLS = Rpc(ROUTER, "RecentCalls", recent_pb2.RecentCallsRequest, recent_pb2.RecentCallsResponse)
GET_STATS = Rpc(ROUTER, "GetStats", stats_pb2.GetStatsRequest, stats_pb2.GetStatsResponse)
RELOAD = Rpc(ROUTER, "Reload", reload_pb2.ReloadRequest, reload_pb2.ReloadResponse)
