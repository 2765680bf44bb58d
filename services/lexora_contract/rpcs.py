"""The rpcs of the contract: a row each, by which transports call them and a server serves them."""

import re
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from google.protobuf.message import Message

from lexora.v1 import (
    admin_pb2,
    audit_pb2,
    classify_pb2,
    embed_pb2,
    explain_pb2,
    health_pb2,
    keys_pb2,
    models_pb2,
    principal_pb2,
    recent_calls_pb2,
    reload_pb2,
    router_pb2,
    stats_pb2,
)
from lexora_contract.access import Scope

Request = TypeVar("Request", bound=Message)
Response = TypeVar("Response", bound=Message)

ROUTER = router_pb2.DESCRIPTOR.services_by_name["RouterService"].full_name
ADMIN = admin_pb2.DESCRIPTOR.services_by_name["AdminService"].full_name
_WORD = re.compile("(?<=[a-z])(?=[A-Z])")


@dataclass(frozen=True, slots=True)
class Rpc(Generic[Request, Response]):
    """One rpc. `method` is the name of what serves it in Python, `path` its name on the wire.

    `scope`: what its caller must have been granted. `counted`: its requests count, also against their user's limit; other rpcs
    are questions about the router. `receipt`: its answer has one. `raw`: its request may have a large body in it, see RawCall.
    """

    service: str
    name: str
    request: type[Request]
    response: type[Response]
    scope: Scope
    counted: bool = False
    method: str = field(init=False)
    path: str = field(init=False)
    receipt: bool = field(init=False)
    raw: bool = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "method", _WORD.sub("_", self.name).lower())
        object.__setattr__(self, "path", f"/{self.service}/{self.name}")
        object.__setattr__(self, "receipt", "receipt" in self.response.DESCRIPTOR.fields_by_name)
        object.__setattr__(self, "raw", "call" in self.request.DESCRIPTOR.fields_by_name)


GENERATE = Rpc(ROUTER, "Generate", router_pb2.GenerateRequest, router_pb2.GenerateResponse, Scope.CALL, counted=True)
EMBED = Rpc(ROUTER, "Embed", embed_pb2.EmbedRequest, embed_pb2.EmbedResponse, Scope.CALL, counted=True)
CLASSIFY = Rpc(ROUTER, "Classify", classify_pb2.ClassifyRequest, classify_pb2.ClassifyResponse, Scope.CALL, counted=True)
LIST_MODELS = Rpc(ROUTER, "ListModels", models_pb2.ListModelsRequest, models_pb2.ListModelsResponse, Scope.CALL)
GET_MODEL = Rpc(ROUTER, "GetModel", models_pb2.GetModelRequest, models_pb2.GetModelResponse, Scope.CALL)
REPORT_REFUSAL = Rpc(
    ROUTER, "ReportRefusal", router_pb2.ReportRefusalRequest, router_pb2.ReportRefusalResponse, Scope.CALL, counted=True
)
GET_PRINCIPAL = Rpc(ROUTER, "GetPrincipal", principal_pb2.GetPrincipalRequest, principal_pb2.GetPrincipalResponse, Scope.KNOWN)
HEALTH = Rpc(ROUTER, "Health", health_pb2.HealthRequest, health_pb2.HealthResponse, Scope.OPEN)
EXPLAIN = Rpc(ADMIN, "Explain", explain_pb2.ExplainRequest, explain_pb2.ExplainResponse, Scope.OBSERVE)
LIST_RECENT_CALLS = Rpc(
    ADMIN, "ListRecentCalls", recent_calls_pb2.ListRecentCallsRequest, recent_calls_pb2.ListRecentCallsResponse, Scope.OBSERVE
)
GET_STATS = Rpc(ADMIN, "GetStats", stats_pb2.GetStatsRequest, stats_pb2.GetStatsResponse, Scope.OBSERVE)
RELOAD = Rpc(ADMIN, "Reload", reload_pb2.ReloadRequest, reload_pb2.ReloadResponse, Scope.ADMIN)
CREATE_KEY = Rpc(ADMIN, "CreateKey", keys_pb2.CreateKeyRequest, keys_pb2.CreateKeyResponse, Scope.ADMIN)
GET_KEY = Rpc(ADMIN, "GetKey", keys_pb2.GetKeyRequest, keys_pb2.GetKeyResponse, Scope.ADMIN)
LIST_KEYS = Rpc(ADMIN, "ListKeys", keys_pb2.ListKeysRequest, keys_pb2.ListKeysResponse, Scope.ADMIN)
REVOKE_KEY = Rpc(ADMIN, "RevokeKey", keys_pb2.RevokeKeyRequest, keys_pb2.RevokeKeyResponse, Scope.ADMIN)
ROTATE_KEY = Rpc(ADMIN, "RotateKey", keys_pb2.RotateKeyRequest, keys_pb2.RotateKeyResponse, Scope.ADMIN)
IMPORT_KEYS = Rpc(ADMIN, "ImportKeys", keys_pb2.ImportKeysRequest, keys_pb2.ImportKeysResponse, Scope.ADMIN)
LIST_AUDIT_EVENTS = Rpc(
    ADMIN, "ListAuditEvents", audit_pb2.ListAuditEventsRequest, audit_pb2.ListAuditEventsResponse, Scope.ADMIN
)
UNARY: tuple[Rpc[Any, Any], ...] = (
    GENERATE,
    EMBED,
    CLASSIFY,
    LIST_MODELS,
    GET_MODEL,
    GET_PRINCIPAL,
    HEALTH,
    REPORT_REFUSAL,
    EXPLAIN,
    LIST_RECENT_CALLS,
    GET_STATS,
    RELOAD,
    CREATE_KEY,
    GET_KEY,
    LIST_KEYS,
    REVOKE_KEY,
    ROTATE_KEY,
    IMPORT_KEYS,
    LIST_AUDIT_EVENTS,
)

# One request, many answers.
STREAM = Rpc(ROUTER, "Stream", router_pb2.StreamRequest, router_pb2.StreamResponse, Scope.CALL, counted=True)

RPCS: dict[str, Rpc[Any, Any]] = {rpc.path: rpc for rpc in (*UNARY, STREAM)}
SERVICES = tuple(sorted({rpc.service for rpc in RPCS.values()}))
