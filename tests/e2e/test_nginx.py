"""The nginx example: two gateways behind one address with TLS, streams that are not held back, gRPC, and one gateway gone."""

import json
import re
import ssl
import threading
from collections.abc import Iterator
from typing import Any

import grpc
import httpx
import pytest

from lexora.v1.admin_pb2_grpc import AdminServiceStub
from lexora.v1.call_pb2 import Call
from lexora.v1.chat_pb2 import ROLE_USER, ChatMessage, ChatRequest
from lexora.v1.explain_pb2 import ExplainRequest
from lexora.v1.router_pb2 import StreamRequest
from lexora.v1.router_pb2_grpc import RouterServiceStub
from lexora_router.config import Config
from tests.support.engine import ScriptedEngine
from tests.support.nginx import EXAMPLE, HOST, Nginx, needs_nginx
from tests.support.raw_server import LAST_CHUNK, RawRequest, chunk, stream_head
from tests.support.servers import Gateway, base_config

pytestmark = needs_nginx

FORGED = {"x-lexora-user": "mallory", "x-lexora-tenant": "mallory"}
ASK: dict[str, Any] = {"model": "m", "stream": True, "messages": [{"role": "user", "content": "hi"}]}
WAIT_SECONDS = 10.0


class SlowAnswer:
    """Sends its last piece only when the client has the first one."""

    def __init__(self) -> None:
        self.seen = threading.Event()

    def __call__(self, connection: Any, _: RawRequest) -> None:
        piece = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
        connection.sendall(stream_head())
        for text, reason in (("one", None), ("two", "stop")):
            choice = {"index": 0, "delta": {"content": text}, "finish_reason": reason}
            connection.sendall(chunk(f"data: {json.dumps(piece | {'choices': [choice]})}\n\n".encode()))
            assert self.seen.wait(WAIT_SECONDS), "the first piece did not reach the client"
        connection.sendall(chunk(b"data: [DONE]\n\n") + LAST_CHUNK)


@pytest.fixture(scope="module")
def engine() -> Iterator[ScriptedEngine]:
    with ScriptedEngine("m") as started:
        yield started


@pytest.fixture(scope="module")
def gateways(engine: ScriptedEngine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Gateway]]:
    config = base_config(main={"url": engine.url, "models": ["m"]})
    with Gateway(config, tmp_path_factory.mktemp("one")) as one, Gateway(config, tmp_path_factory.mktemp("two")) as two:
        yield [one, two]


@pytest.fixture(scope="module")
def nginx(gateways: list[Gateway], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nginx]:
    addresses = [(gateway.http.removeprefix("http://"), gateway.grpc) for gateway in gateways]
    with Nginx(tmp_path_factory.mktemp("nginx"), addresses) as process:
        yield process


@pytest.fixture
def https(nginx: Nginx) -> Iterator[httpx.Client]:
    trusted = ssl.create_default_context(cafile=str(nginx.certificate))
    with httpx.Client(base_url=nginx.https, verify=trusted, timeout=WAIT_SECONDS) as client:
        yield client


def test_nginx_has_nothing_to_say(nginx: Nginx) -> None:
    assert nginx.complaints() == ""


def test_a_stream_is_not_held_back(https: httpx.Client, engine: ScriptedEngine) -> None:
    engine.answer = answer = SlowAnswer()
    text = ""
    with https.stream("POST", "/v1/chat/completions", json=ASK) as response:
        assert response.status_code == 200
        for piece in response.iter_text():
            text += piece
            if "one" in text:
                answer.seen.set()
    assert text.endswith("data: [DONE]\n\n")


def test_grpc_goes_through_as_well(nginx: Nginx, engine: ScriptedEngine) -> None:
    engine.answer = answer = SlowAnswer()
    asked = StreamRequest(call=Call(chat=ChatRequest(model="m", messages=[ChatMessage(role=ROLE_USER, text="hi")])))
    trusted = grpc.ssl_channel_credentials(nginx.certificate.read_bytes())
    text = ""
    with grpc.secure_channel(f"127.0.0.1:{nginx.port}", trusted, [("grpc.ssl_target_name_override", HOST)]) as channel:
        messages: Any = RouterServiceStub(channel).Stream(asked, timeout=WAIT_SECONDS)
        for message in messages:
            text += "".join(choice.text for choice in message.delta.chat.choices)
            answer.seen.set()
    assert text == "onetwo"


def test_a_client_behind_it_cannot_name_itself_as_a_proxy_would(nginx: Nginx, https: httpx.Client) -> None:
    told = https.post("/v1/chat/completions", json=ASK, headers=FORGED | {"x-lexora-explain": "1"}).json()
    trusted = grpc.ssl_channel_credentials(nginx.certificate.read_bytes())
    with grpc.secure_channel(f"127.0.0.1:{nginx.port}", trusted, [("grpc.ssl_target_name_override", HOST)]) as channel:
        router: Any = AdminServiceStub(channel)
        answer = router.Explain(ExplainRequest(model="m"), metadata=list(FORGED.items()), timeout=WAIT_SECONDS)
    assert [told["tenant"]["user"], answer.tenant.user] == ["anonymous@127.0.0.1"] * 2


def test_bodies_and_silences_of_the_defaults_pass() -> None:
    config, text = Config(), EXAMPLE.read_text()
    [megabytes] = re.findall(r"client_max_body_size (\d+)m;", text)
    assert int(megabytes) * 2**20 == config.server.max_body_bytes
    silences = [int(seconds) for seconds in re.findall(r"(?:proxy|grpc)_read_timeout (\d+)s;", text)]
    assert len(silences) == 2
    assert min(silences) > config.vllm.total_timeout


def test_one_gateway_gone_costs_no_call(https: httpx.Client, gateways: list[Gateway], engine: ScriptedEngine) -> None:
    served = {https.get("/health/live").status_code for _ in range(4)}
    gateways[0].stop()
    served |= {https.get("/v1/models").status_code for _ in range(8)}
    assert served == {200}
