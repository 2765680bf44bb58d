"""Sdist and wheel, installed as users do beside an older protobuf: what they carry, and that client and server run."""

import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from lexora_router.version import __version__, commit
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
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sdist, unpacked: no checkout, so without git."""
    folder = tmp_path_factory.mktemp("sdist")
    _run(sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", str(folder), cwd=REPOSITORY)
    (packed,) = folder.glob("*.tar.gz")
    with tarfile.open(packed) as archive:
        archive.extractall(folder, filter="data")
    return folder / packed.name.removesuffix(".tar.gz")


@pytest.fixture(scope="module")
def wheel(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from the sdist, as an index or a distributor may."""
    return _wheel(source, tmp_path_factory.mktemp("wheel"))


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


def test_it_is_the_wheel_of_the_checkout(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as built, zipfile.ZipFile(_wheel(REPOSITORY, tmp_path)) as other:
        differ = {each.filename for each in built.infolist()} ^ {each.filename for each in other.infolist()}
        assert differ == set()
        changed = {name for name in built.namelist() if built.read(name) != other.read(name)}
        assert not [name for name in changed if not name.endswith("/RECORD")]  # its lines come in another order


def test_the_sdist_has_what_a_packager_tests_with(source: Path) -> None:
    for name in (
        "LICENSE",
        "README.md",
        "Makefile",
        "pyproject.toml",
        "tests/conftest.py",
        "deploy/requirements.lock",
        "proto",
    ):
        assert (source / name).exists(), name


@pytest.mark.timeout(300)  # packages come from elsewhere
@pytest.mark.parametrize("major", [5, 6])
def test_client_and_server_with_an_older_protobuf(wheel: Path, engine: Simulator, major: int, tmp_path: Path) -> None:
    own = tmp_path / "venv/bin"
    _run(sys.executable, "-m", "venv", "--without-pip", str(own.parent))
    pip = (sys.executable, "-m", "pip", "--python", str(own / "python"))
    _run(*pip, "install", "--quiet", "--no-compile", str(wheel), f"protobuf<{major + 1}")
    assert _run(str(own / "lexora"), "--version", cwd=tmp_path) == f"lexora {__version__} (commit {commit()})\n"
    config = base_config(main={"url": engine.url})
    with Gateway(config, tmp_path, command=[str(own / "lexora")]) as gateway:
        said = _run(str(own / "python"), "-W", "error:::lexora", "-c", CLIENT, gateway.grpc)
    assert said.split() == [str(major), "3", "True"]
    assert "Traceback" not in gateway.output


def _wheel(source: Path, folder: Path) -> Path:
    _run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder), cwd=source)
    (found,) = folder.glob("*.whl")
    return found


def _run(*argv: str, cwd: Path | None = None) -> str:
    done = subprocess.run(argv, cwd=cwd, check=False, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
