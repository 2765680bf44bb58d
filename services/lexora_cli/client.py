"""A blocking gRPC client of a router, for commands."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import grpc

from lexora.client import Client, LexoraError, error_of
from lexora.v1.explain_pb2 import ExplainRequest, ExplainResponse
from lexora.v1.health_pb2 import HealthRequest, HealthResponse
from lexora.v1.models_pb2 import ListModelsRequest, ListModelsResponse
from lexora.v1.recent_calls_pb2 import ListRecentCallsRequest, ListRecentCallsResponse
from lexora.v1.reload_pb2 import ReloadReport, ReloadRequest
from lexora.v1.router_pb2 import StreamRequest, StreamResponse
from lexora.v1.stats_pb2 import GetStatsRequest, GetStatsResponse
from lexora_cli.interrupt import lasting_interrupt

# Questions about the router itself are answered from memory, or from probes with time limits of their own.
TIMEOUT_SECONDS = 10.0
# The file may be on a slow disk, and certificates are read as well.
RELOAD_SECONDS = 60.0


class RouterFailure(Exception):
    """A call failed; the message is one line for people. `reason` is the router's own, empty when it never answered."""

    def __init__(self, message: str, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason


class RouterClient:
    """One channel to the router at `target` (host:port or unix:path). Methods raise RouterFailure."""

    def __init__(self, target: str) -> None:
        self.target = target
        self._client = Client(target)
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
            raise _failure(error_of(error), self.target) from error


def _failure(error: LexoraError, target: str) -> RouterFailure:
    message = " ".join(str(error).split())
    if error.reason:
        return RouterFailure(f"{error.reason}: {message}", error.reason)
    match error.code:
        case grpc.StatusCode.UNAVAILABLE if "http1.x server" in message:  # what gRPC makes of an answer in HTTP/1.1
            return RouterFailure(
                f"{target} is an HTTP port: --router takes the router's gRPC port, which is usually 50051 (HTTP: 8001)"
            )
        case grpc.StatusCode.UNAVAILABLE:
            return RouterFailure(
                f"no router answers at {target}; start one with `lexora serve`, or name another with --router HOST:PORT"
            )
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            return RouterFailure(_silent(target))
        case grpc.StatusCode.UNIMPLEMENTED:
            return RouterFailure(f"{target} serves gRPC, but is no Lexora router")
    return RouterFailure(f"{error.code.name}: {message}")


def _silent(target: str) -> str:
    return f"the router at {target} did not answer within {TIMEOUT_SECONDS:.0f} seconds"
