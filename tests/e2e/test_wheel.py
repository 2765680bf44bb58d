"""The wheel, installed as its users do beside an older protobuf: what it carries, and that client and server run."""

import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.process import REPOSITORY
from tests.support.servers import Gateway, Simulator, base_config

pytestmark = pytest.mark.timeout(300)  # environments of their own are made

# As a service writes it: dictionaries for messages, names for enums.
CLIENT = """
import sys, grpc, google.protobuf
from lexora.v1 import chat_pb2, router_pb2, router_pb2_grpc
chat = chat_pb2.ChatRequest(model="qwen3-32b", messages=[{"role": "ROLE_USER", "text": "Hi"}], sampling={"max_tokens": 3})
with grpc.insecure_channel(sys.argv[1]) as channel:
    router = router_pb2_grpc.RouterServiceStub(channel)
    call = {"chat": chat}
    whole = router.Generate(router_pb2.GenerateRequest(call=call), timeout=10)
    stream = router.Stream(router_pb2.StreamRequest(call=call), timeout=10)
    pieces = [each.delta.chat for each in stream if each.HasField("delta")]
print(google.protobuf.__version__.split(".")[0], whole.chat.usage.output_tokens, len(pieces) > 1)
"""


SERVICES = REPOSITORY / "services"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    _run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder), cwd=REPOSITORY)
    (found,) = folder.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def engine() -> Iterator[Simulator]:
    with Simulator() as engine:
        yield engine


def test_the_wheel_carries_the_contract(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    protos = {f"lexora/v1/{each.name}" for each in (REPOSITORY / "proto/lexora/v1").glob("*.proto")}
    assert protos
    assert protos <= names
    assert {name.replace(".proto", "_pb2.py") for name in protos} <= names
    programs = {str(each.relative_to(SERVICES)) for each in (SERVICES / "lexora_router/state").rglob("*.lua")}
    assert "lexora_router/state/store.lua" in programs
    assert programs <= names


@pytest.mark.timeout(300)  # packages come from elsewhere
@pytest.mark.parametrize("major", [5, 6])
def test_client_and_server_with_an_older_protobuf(wheel: Path, engine: Simulator, major: int, tmp_path: Path) -> None:
    own = tmp_path / "venv/bin"
    _run(sys.executable, "-m", "venv", "--without-pip", str(own.parent))
    pip = (sys.executable, "-m", "pip", "--python", str(own / "python"))
    _run(*pip, "install", "--quiet", "--no-compile", str(wheel), f"protobuf<{major + 1}")
    config = base_config(main={"url": engine.url})
    with Gateway(config, tmp_path, command=[str(own / "lexora")]) as gateway:
        said = _run(str(own / "python"), "-W", "error:::lexora", "-c", CLIENT, gateway.grpc)
    assert said.split() == [str(major), "3", "True"]
    assert "Traceback" not in gateway.output


def _run(*argv: str, cwd: Path | None = None) -> str:
    done = subprocess.run(argv, cwd=cwd, check=False, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
