"""A blocking gRPC client of a router, for commands."""

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import grpc

from lexora.client import Client, LexoraError, Settings, error_of
from lexora.v1 import keys_pb2
from lexora.v1.audit_pb2 import AuditEvent, ListAuditEventsRequest
from lexora.v1.explain_pb2 import ExplainRequest, ExplainResponse
from lexora.v1.health_pb2 import HealthRequest, HealthResponse
from lexora.v1.models_pb2 import ListModelsRequest, ListModelsResponse
from lexora.v1.principal_pb2 import GetPrincipalRequest, GetPrincipalResponse
from lexora.v1.recent_calls_pb2 import ListRecentCallsRequest, ListRecentCallsResponse
from lexora.v1.reload_pb2 import ReloadReport, ReloadRequest
from lexora.v1.router_pb2 import StreamRequest, StreamResponse
from lexora.v1.stats_pb2 import GetStatsRequest, GetStatsResponse
from lexora_cli.interrupt import lasting_interrupt

# Questions about the router itself are answered from memory, or from probes with time limits of their own.
TIMEOUT_SECONDS = 10.0
# The file may be on a slow disk, and certificates are read as well.
RELOAD_SECONDS = 60.0
# A file of many keys is written anew for each change.
EDIT_SECONDS = 60.0
_KEYS_A_PAGE = 1000
API_KEY = "LEXORA_API_KEY"


# What gRPC says of a connection that was made and ended at once.
_CUT_OFF = re.compile(r"[Ss]ocket closed|reset by peer|[Bb]roken pipe|[Hh]andshake")


class RouterFailure(Exception):
    """A call failed; the message is one line for people. `reason` is the router's own, empty when it never answered."""

    def __init__(self, message: str, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason


class RouterClient:
    """One channel to the router at `target` (host:port or unix:path). Methods raise RouterFailure.

    Calls show the key in $LEXORA_API_KEY, if there is one.
    """

    def __init__(self, target: str, credentials: grpc.ChannelCredentials | None = None) -> None:
        self.target = target
        self._secured = credentials is not None
        self._client = Client(Settings(target, credentials=credentials, api_key=os.environ.get(API_KEY, "").strip()))
        self._stub, self._admin = self._client.router, self._client.admin

    def models(self) -> ListModelsResponse:
        """The models that can be asked, all pages in one."""
        with self._failures():
            listed = self._stub.ListModels(ListModelsRequest(), timeout=TIMEOUT_SECONDS)
            while listed.next_page_token:
                request = ListModelsRequest(page_token=listed.next_page_token)
                page = self._stub.ListModels(request, timeout=TIMEOUT_SECONDS)
                listed.models.extend(page.models)
                listed.next_page_token = page.next_page_token
        return listed

    def health(self) -> HealthResponse:
        """State of the router and of each backend."""
        with self._failures():
            return self._stub.Health(HealthRequest(), timeout=TIMEOUT_SECONDS)

    def stats(self) -> GetStatsResponse:
        """Counters and gauges since the start."""
        with self._failures():
            return self._admin.GetStats(GetStatsRequest(), timeout=TIMEOUT_SECONDS)

    def recent_calls(self, limit: int) -> ListRecentCallsResponse:
        """The calls that finished last."""
        with self._failures():
            return self._admin.ListRecentCalls(ListRecentCallsRequest(page_size=limit), timeout=TIMEOUT_SECONDS)

    def explain(self, request: ExplainRequest, seconds: float | None) -> ExplainResponse:
        """Where a call would go that has so many seconds, None for no limit."""
        with self._failures():
            # The rpc's own deadline counts as the call's, so the patience of the command stays on this side.
            asked: Any = self._admin.Explain.future(request, timeout=seconds)
            try:
                answer: ExplainResponse = asked.result(timeout=TIMEOUT_SECONDS)
            except grpc.FutureTimeoutError:
                asked.cancel()
                raise RouterFailure(_silent(self.target)) from None
        return answer

    def reload(self) -> ReloadReport:
        """Let the router load its configuration again; gives the result."""
        with self._failures():
            return self._admin.Reload(ReloadRequest(), timeout=RELOAD_SECONDS).report

    def principal(self) -> GetPrincipalResponse:
        """The caller that these credentials make."""
        with self._failures():
            return self._stub.GetPrincipal(GetPrincipalRequest(), timeout=TIMEOUT_SECONDS)

    def audit_events(self, limit: int) -> list[AuditEvent]:
        """The last events of the audit log, the last one first."""
        with self._failures():
            request = ListAuditEventsRequest(page_size=limit)
            return list(self._admin.ListAuditEvents(request, timeout=TIMEOUT_SECONDS).audit_events)

    def create_key(self, request: keys_pb2.CreateKeyRequest) -> keys_pb2.CreateKeyResponse:
        """Make a key."""
        with self._failures():
            return self._admin.CreateKey(request, timeout=EDIT_SECONDS)

    def get_key(self, id: str) -> keys_pb2.Key:
        """One key."""
        with self._failures():
            request = keys_pb2.GetKeyRequest(id=id)
            return self._admin.GetKey(request, timeout=TIMEOUT_SECONDS).key

    def keys(self) -> list[keys_pb2.Key]:
        """Every key, all pages in one."""
        request, found = keys_pb2.ListKeysRequest(page_size=_KEYS_A_PAGE), list[keys_pb2.Key]()
        with self._failures():
            while True:
                page = self._admin.ListKeys(request, timeout=TIMEOUT_SECONDS)
                found += page.keys
                if not page.next_page_token:
                    return found
                request.page_token = page.next_page_token

    def revoke_key(self, id: str) -> keys_pb2.Key:
        """End a key."""
        with self._failures():
            request = keys_pb2.RevokeKeyRequest(id=id)
            return self._admin.RevokeKey(request, timeout=EDIT_SECONDS).key

    def rotate_key(self, request: keys_pb2.RotateKeyRequest) -> keys_pb2.RotateKeyResponse:
        """Make a key that takes another's place."""
        with self._failures():
            return self._admin.RotateKey(request, timeout=EDIT_SECONDS)

    def import_keys(self, request: keys_pb2.ImportKeysRequest) -> list[keys_pb2.Key]:
        """Take over keys; gives those that were not there."""
        with self._failures():
            return list(self._admin.ImportKeys(request, timeout=EDIT_SECONDS).keys)

    def stream(self, request: StreamRequest, on_message: Callable[[StreamResponse], None]) -> None:
        """Pass each message of the answer to `on_message`; leaving early, by any exception, cancels the call."""
        messages: Any = self._stub.Stream(request)
        with self._failures(), lasting_interrupt() as check:
            try:
                for message in messages:
                    check()
                    on_message(message)
            finally:
                messages.cancel()

    def close(self) -> None:
        """Close the channel."""
        self._client.close()

    def __enter__(self) -> "RouterClient":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def _failures(self) -> Iterator[None]:
        try:
            yield
        except grpc.RpcError as error:
            raise _failure(error_of(error), self.target, secured=self._secured) from error


def _failure(error: LexoraError, target: str, *, secured: bool) -> RouterFailure:
    message = " ".join(str(error).split())
    if error.reason:
        hint = "; LEXORA_API_KEY has the key of a command" if error.reason == "UNAUTHENTICATED" else ""
        return RouterFailure(f"{error.reason}: {message}{hint}", error.reason)
    match error.code:
        case grpc.StatusCode.UNAVAILABLE:
            return RouterFailure(_unreached(message, target, secured=secured))
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            return RouterFailure(_silent(target))
        case grpc.StatusCode.UNIMPLEMENTED:
            return RouterFailure(f"{target} serves gRPC, but is no Lexora router")
    return RouterFailure(f"{error.code.name}: {message}")


def _unreached(message: str, target: str, *, secured: bool) -> str:
    """Why there is no connection, by what gRPC says of it."""
    if "http1.x server" in message:  # an answer in HTTP/1.1
        return f"{target} is an HTTP port: --router takes the router's gRPC port, which is usually 50051 (HTTP: 8001)"
    if secured and "CERTIFICATE_VERIFY_FAILED" in message:
        return f"the certificate that {target} shows is not trusted: name its authority with --ca FILE"
    if secured and "is not in peer certificate" in message:
        return f"the certificate that {target} shows is for another name: name the router with --router as its certificate does"
    if secured and _CUT_OFF.search(message):
        return f"{target} ended the connection: it may want a certificate (--cert FILE, --key FILE), or speak no TLS"
    if _CUT_OFF.search(message):
        return f"{target} took the connection and closed it: if it speaks TLS, add --tls or --ca FILE"
    return f"no router answers at {target}; start one with `lexora serve`, or name another with --router HOST:PORT"


def _silent(target: str) -> str:
    return f"the router at {target} did not answer within {TIMEOUT_SECONDS:.0f} seconds"
