"""`lexora serve`, `lexora router` and `lexora gateway` as processes: start, end, and what stands in their way."""

import json
import re
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest

from lexora.v1.call_pb2 import Call
from lexora.v1.chat_pb2 import ROLE_USER, ChatMessage, ChatRequest
from lexora.v1.router_pb2 import StreamRequest
from lexora.v1.router_pb2_grpc import RouterServiceStub
from tests.support.process import Process, python
from tests.support.servers import LEXORA, Gateway, Simulator, calm_config, write_config

MODEL = "qwen3-32b"
QUICK_END = 3.0  # seconds; far below any drain


@pytest.fixture(scope="module")
def engine() -> Iterator[Simulator]:
    with Simulator("--itl-ms", "20", model=MODEL) as simulator:
        yield simulator


def config(engine: Simulator, **server: Any) -> dict[str, Any]:
    found = calm_config(main={"url": engine.url, "models": [MODEL]})
    found["server"] |= server
    return found


def chat(tokens: int, *, stream: bool) -> dict[str, Any]:
    messages = [{"role": "user", "content": "hi"}]
    return {"model": MODEL, "messages": messages, "stream": stream, "max_tokens": tokens, "ignore_eos": True}


class Reader:
    """A streamed chat read in a thread of its own; `first` is set with the first byte."""

    def __init__(self, url: str, tokens: int) -> None:
        self.first = threading.Event()
        self.text = ""
        self._request = (f"{url}/v1/chat/completions", chat(tokens, stream=True))
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def __enter__(self) -> "Reader":
        assert self.first.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join(10)
        assert not self._thread.is_alive()

    def _read(self) -> None:
        url, body = self._request
        try:
            with httpx.stream("POST", url, json=body, timeout=20) as response:
                for piece in response.iter_text():
                    self.text += piece
                    self.first.set()
        except httpx.HTTPError as error:
            self.text += f"<{type(error).__name__}>"


def test_a_second_signal_ends_at_once(engine: Simulator, tmp_path: Path) -> None:
    with Gateway(config(engine, drain_timeout=60), tmp_path) as gateway, Reader(gateway.http, tokens=5000):
        gateway.signal(signal.SIGINT)
        gateway.wait_for("draining")
        gateway.signal(signal.SIGTERM)
        assert gateway.wait(QUICK_END) == -signal.SIGTERM


def test_json_logs_tell_the_addresses_and_the_warnings(engine: Simulator, tmp_path: Path) -> None:
    wanted = config(engine)
    wanted["logging"] = {"format": "json"}
    wanted["routing"]["backends"]["main"]["api_key_env"] = "NO_SUCH_KEY"
    file = write_config(wanted, tmp_path)
    with Process([*LEXORA, "serve", "-c", str(file), "--host", "127.0.0.1"], cwd=tmp_path, fresh=True) as gateway:
        gateway.wait_for(r'"serving"')
        lines = [json.loads(line) for line in gateway.lines]
        (serving,) = [line for line in lines if line["event"] == "serving"]
        assert httpx.get(f"{serving['http']}/health/live").status_code == 200
        assert re.fullmatch(r"127\.0\.0\.1:[1-9]\d*", serving["grpc"])
        assert any("NO_SUCH_KEY" in line.get("warning", "") for line in lines)
        assert gateway.stop() == 0


def test_router_and_gateway_in_two_processes(engine: Simulator, tmp_path: Path) -> None:
    file = write_config(config(engine), tmp_path)
    with Process([*LEXORA, "router", "--config", str(file)], fresh=True) as router:
        grpc_address = router.wait_for(r"serving\b.*grpc=(\S+)").group(1)
        arguments = ["gateway", "--router", grpc_address, "--config", str(file)]
        with Process([*LEXORA, *arguments], fresh=True) as gateway:
            http = gateway.wait_for(r"serving\b.*http=(\S+)").group(1)
            answer = httpx.post(f"{http}/v1/chat/completions", json=chat(3, stream=False)).raise_for_status()
            assert answer.headers["x-lexora-backend"] == "main"
            assert httpx.get(f"{http}/metrics").status_code == 200
            with Reader(http, tokens=45) as reader:
                gateway.signal(signal.SIGTERM)
                gateway.wait_for("draining")
                refused = httpx.post(f"{http}/v1/chat/completions", json=chat(1, stream=False))
                assert refused.status_code == 503
            assert reader.text.endswith("data: [DONE]\n\n")
            assert gateway.wait() == 0
        assert router.stop() == 0
        assert "Traceback" not in router.output + gateway.output


def test_python_m_lexora_router_ends_its_grpc_streams(engine: Simulator, tmp_path: Path) -> None:
    file = write_config(config(engine), tmp_path)
    with Process(
        [*python("lexora_router"), "--config", str(file), "--host", "127.0.0.1", "--grpc-port", "0"], fresh=True
    ) as router:
        address = router.wait_for(r"serving\b.*grpc=(\S+)").group(1)
        asked = ChatRequest(model=MODEL, messages=[ChatMessage(role=ROLE_USER, text="hi")])
        asked.sampling.max_tokens = 40
        with grpc.insecure_channel(address) as channel:
            stub = RouterServiceStub(channel)
            messages: Any = iter(stub.Stream(StreamRequest(call=Call(chat=asked))))
            next(messages)
            router.signal(signal.SIGTERM)
            router.wait_for("draining")
            with pytest.raises(grpc.RpcError) as refused:
                next(iter(stub.Stream(StreamRequest(call=Call(chat=asked)))))
            assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
            *_, last = messages
        assert last.completed.receipt.usage.output_tokens == 40
        assert router.wait() == 0


@pytest.mark.parametrize(
    ("command", "setting"), [(["serve"], "--port"), (["serve"], "--grpc-port"), (["gateway", "--router", "x:1"], "--port")]
)
def test_a_taken_port_is_one_clear_line(command: list[str], setting: str, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        file = write_config(calm_config(), tmp_path)
        with Process([*LEXORA, *command, "--config", str(file), setting, str(port)]) as process:
            assert process.wait() == 1
    lines = [line for line in process.lines if "[info" not in line and "[warning" not in line]
    assert len(lines) == 1, process.output
    assert f"cannot listen on 127.0.0.1:{port}: Address already in use" in lines[0]
    assert f"({setting})" in lines[0]


@pytest.mark.parametrize("command", [python("lexora_router"), [*LEXORA, "serve"], [*LEXORA, "gateway", "--router", "x:1"]])
def test_a_broken_file_is_told_whole_and_starts_nothing(command: list[str], tmp_path: Path) -> None:
    file = tmp_path / "broken.yaml"
    file.write_text("server: {prot: 1}\nrouting:\n  default_backend: nobody\n  backends:\n    main: {tiemout: 3}\n")
    with Process([*command, "--config", str(file)]) as process:
        assert process.wait() == 1
    for wanted in ("server.prot", "tiemout", "default_backend", "did you mean timeout?"):
        assert wanted in process.output
    assert "Traceback" not in process.output
    assert "serving" not in process.output
