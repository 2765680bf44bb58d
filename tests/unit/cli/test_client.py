import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from lexora.v1.admin_pb2_grpc import AdminServiceServicer, add_AdminServiceServicer_to_server
from lexora.v1.explain_pb2 import ExplainRequest, ExplainResponse
from lexora.v1.health_pb2 import HealthRequest, HealthResponse
from lexora.v1.router_pb2 import StreamRequest, StreamResponse
from lexora.v1.router_pb2_grpc import RouterServiceServicer, add_RouterServiceServicer_to_server
from lexora_cli.client import RouterClient, RouterFailure
from lexora_contract.answer import Receipt
from lexora_contract.status import status_of
from lexora_router.edge.call_failed import failed
from lexora_router.errors import ModelNotFound


class Servicer(RouterServiceServicer, AdminServiceServicer):
    """Health answers, ListModels fails with details of ours, Stream never ends by itself."""

    def __init__(self) -> None:
        self.left = threading.Event()

    def Health(self, request: HealthRequest, context: grpc.ServicerContext) -> HealthResponse:
        return HealthResponse(version="9")

    def ListModels(self, request: object, context: grpc.ServicerContext) -> object:
        status = status_of(failed(ModelNotFound("x"), Receipt()), max_body=0)
        context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
        context.abort(grpc.StatusCode.NOT_FOUND, "line one\nline two")
        raise AssertionError

    def Explain(self, request: ExplainRequest, context: grpc.ServicerContext) -> ExplainResponse:
        if request.model == "slow":
            context.add_callback(self.left.set)
            self.left.wait(10)
        # Without a deadline gRPC tells of centuries.
        return ExplainResponse(summary=["no deadline" if context.time_remaining() > 1e6 else "a deadline"])

    def Stream(self, request: StreamRequest, context: grpc.ServicerContext) -> Iterator[StreamResponse]:
        context.add_callback(self.left.set)
        while context.is_active():
            yield StreamResponse(delta={"frames": b"x"})


@pytest.fixture
def served() -> Iterator[tuple[RouterClient, Servicer]]:
    with ThreadPoolExecutor(4) as threads:
        server, servicer = grpc.server(threads), Servicer()
        add_RouterServiceServicer_to_server(servicer, server)
        add_AdminServiceServicer_to_server(servicer, server)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        with RouterClient(f"127.0.0.1:{port}") as client:
            yield client, servicer
        server.stop(0).wait()


def test_an_answer(served: tuple[RouterClient, Servicer]) -> None:
    assert served[0].health().version == "9"


def test_a_failure_of_the_routers_own_is_one_line_with_its_reason(served: tuple[RouterClient, Servicer]) -> None:
    with pytest.raises(RouterFailure, match=r"^MODEL_NOT_FOUND: line one line two$") as failed:
        served[0].models()
    assert failed.value.reason == "MODEL_NOT_FOUND"


def test_a_server_that_is_no_router(served: tuple[RouterClient, Servicer]) -> None:
    with pytest.raises(RouterFailure, match="is no Lexora router"):
        served[0].stats()


def test_leaving_a_stream_cancels_the_call(served: tuple[RouterClient, Servicer]) -> None:
    client, servicer = served

    def interrupt(message: StreamResponse) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        client.stream(StreamRequest(), interrupt)
    assert servicer.left.wait(5)


def test_nobody_at_home() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        target = f"127.0.0.1:{probe.getsockname()[1]}"
        with RouterClient(target) as client, pytest.raises(RouterFailure, match=f"^no router answers at {target}; start one"):
            client.health()


def test_an_explanation_is_asked_for_without_a_deadline_and_not_waited_for_without_end(
    served: tuple[RouterClient, Servicer], monkeypatch: pytest.MonkeyPatch
) -> None:
    client, servicer = served
    assert client.explain(ExplainRequest(model="m"), None).summary == ["no deadline"]
    assert client.explain(ExplainRequest(model="m"), 30.0).summary == ["a deadline"]
    monkeypatch.setattr("lexora_cli.client.TIMEOUT_SECONDS", 0.2)
    with pytest.raises(RouterFailure, match="did not answer within"):
        client.explain(ExplainRequest(model="slow"), None)
    assert servicer.left.wait(5), "the router is told that nobody waits any more"
