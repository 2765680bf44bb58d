"""The image: what is in it, how large it is, and that it serves as its user from a root that cannot be written."""

import json
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from lexora_router.version import __version__, commit
from tests.support.image import Image, build, needs_buildah, unpacked
from tests.support.process import REPOSITORY
from tests.support.servers import Simulator, plain
from tests.support.wire import wait_until

pytestmark = [needs_buildah, pytest.mark.timeout(500)]  # packages come from elsewhere

MOST_BYTES = 160 * 2**20
CHAT = {"model": "qwen3-32b", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 3}
READY = re.compile(r"http(?:=|\":\")http://[^\s\"]+:(\d+)")


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Image:
    return build(tmp_path_factory.mktemp("image"))


@pytest.fixture(scope="module")
def engine() -> Iterator[Simulator]:
    with Simulator() as engine:
        yield engine


def files(root: Path) -> Iterator[Path]:
    for folder, _, names in os.walk(root):
        yield from (Path(folder) / name for name in names)


def test_it_serves_a_question_from_a_root_that_cannot_be_written(image: Image, engine: Simulator) -> None:
    env = {"LEXORA_VLLM__URL": engine.url, "LEXORA_SERVER__HOST": "127.0.0.1"}
    env |= {"LEXORA_SERVER__PORT": "0", "LEXORA_SERVER__GRPC_PORT": "50991", "LEXORA_LOGGING__FORMAT": "json"}
    with image.start(*image.config["Cmd"], env=env) as gateway:
        port = READY.search(plain(gateway.wait_ready(r".*\bserving\b.*").group(0)))
        assert port
        gateway.wait_for("endpoint_up")
        answer = httpx.post(f"http://127.0.0.1:{port[1]}/v1/chat/completions", json=CHAT, timeout=30)
        assert answer.json()["usage"]["completion_tokens"] == 3
        assert Path(f"/proc/{gateway.pid}/status").read_text().split("Uid:")[1].split()[:4] == ["10001"] * 4
        assert "/ ro," in re.sub(r"(?m)^\S+ (\S+) \S+ (\S+).*$", r"\1 \2,", Path(f"/proc/{gateway.pid}/mounts").read_text())
        [test, *probe] = image.config["Healthcheck"]["Test"]
        assert test == "CMD"
        asked = image.run(*probe, "--router", "127.0.0.1:50991")
        assert (asked.returncode, asked.stderr) == (0, ""), asked.stdout
        assert gateway.stop() == 0


def test_several_workers_need_no_more_than_a_folder_for_their_socket(image: Image, engine: Simulator) -> None:
    env = {"LEXORA_VLLM__URL": engine.url, "LEXORA_SERVER__HOST": "127.0.0.1", "LEXORA_SERVER__WORKERS": "2"}
    env |= {"LEXORA_SERVER__PORT": "8992", "LEXORA_SERVER__GRPC_PORT": "50992", "LEXORA_LOGGING__FORMAT": "json"}
    with image.start("serve", env=env) as gateway:
        gateway.wait_ready(r"\bserving\b")
        wait_until(lambda: post(CHAT, "http://127.0.0.1:8992") == 3, "an answer")
        health = httpx.get("http://127.0.0.1:8992/health", timeout=30).json()
        assert health["state"]["replicas"] == 2, health


def post(call: dict[str, object], url: str) -> object:
    """The tokens of the answer; None while nothing listens."""
    try:
        return httpx.post(f"{url}/v1/chat/completions", json=call, timeout=30).json()["usage"]["completion_tokens"]
    except httpx.ConnectError:
        return None


def test_an_engine_can_be_simulated_by_the_same_image(image: Image) -> None:
    with image.start("sim", "--port", "0") as simulator:
        url = simulator.wait_ready(r"on (http://\S+)").group(1)
        assert httpx.get(f"{url}/health", timeout=30).status_code == 200


def test_the_version_has_the_commit(image: Image) -> None:
    assert image.run("--version").stdout == f"lexora {__version__} (commit {commit()})\n"
    assert image.config["Labels"]["org.opencontainers.image.revision"] == commit()


def test_it_is_no_larger_than_it_may_be(image: Image) -> None:
    assert unpacked(image.root) <= MOST_BYTES


def test_it_has_nothing_that_serves_an_intruder(image: Image) -> None:
    found = {str(path.relative_to(image.root)) for path in files(image.root)}
    names = {path.rpartition("/")[2] for path in found}
    assert not {"sh", "bash", "dash", "busybox", "apt", "apt-get", "dpkg", "pip", "pip3", "perl", "curl", "wget", "gcc"} & names
    assert not [path for path in found if re.search(r"-packages/(pip|setuptools|wheel|grpc_tools|pytest|hatchling)\b", path)]
    assert [path for path in found if path.startswith(("bin/", "sbin/", "usr/bin/", "usr/sbin/"))] == ["usr/bin/python3.11"]
    modes = {path: path.lstat().st_mode for path in files(image.root)}
    assert not [path for path, mode in modes.items() if mode & (stat.S_ISUID | stat.S_ISGID)]
    assert not [path for path, mode in modes.items() if mode & stat.S_IWOTH and not stat.S_ISLNK(mode)]
    assert image.config["User"] == "10001:10001"


def test_modules_are_compiled(image: Image) -> None:
    package = image.root / "opt/lexora/lib/python3.11/site-packages/lexora_router"
    compiled = {path.name.partition(".")[0] for path in package.glob("__pycache__/*.pyc")}
    assert {path.stem for path in package.glob("*.py")} == compiled


def test_the_bill_of_materials_lists_what_is_there(image: Image) -> None:
    bill = json.loads((image.root / "usr/share/sbom/lexora.cdx.json").read_text())
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    assert bill["metadata"]["component"]["purl"] == f"pkg:pypi/spirrow-lexora@{__version__}"
    listed = {each["purl"].partition("?")[0] for each in bill["components"]}
    lock = (REPOSITORY / "deploy/requirements.lock").read_text()
    locked = re.findall(r"(?m)^([a-z0-9._-]+)==([^\s;\\]+)( ;.*== 'win32'.*)?", lock)
    assert {f"pkg:pypi/{name}@{version}" for name, version, elsewhere in locked if not elsewhere} == {
        each for each in listed if each.startswith("pkg:pypi/")
    }
    debian = {path.name for path in (image.root / "var/lib/dpkg/status.d").iterdir()}
    assert {each.removeprefix("pkg:deb/debian/").partition("@")[0] for each in listed if each.startswith("pkg:deb/")} == debian
    assert {"libc6", "libssl3", "python3.11-minimal"} <= debian
