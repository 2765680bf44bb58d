"""The first minutes with Lexora: addresses, `--url`, `lexora init`, and commands that say their own names."""

import json
import os
import re
import socket
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.process import REPOSITORY, Process, python
from tests.support.servers import LEXORA, Simulator, plain

MODEL, SECOND = "qwen3-32b", "qwen3-8b"
FREE_PORTS = ("--port", "0", "--grpc-port", "0")
UNIT = (REPOSITORY / "deploy/systemd/lexora.service").read_text()
UNIT_ENVIRONMENT = dict(
    line.removeprefix("Environment=").split("=") for line in UNIT.splitlines() if line.startswith("Environment=")
)
OWN_NAMES = {
    "lexora": [str(Path(sys.executable).with_name("lexora"))],
    **{f"python -m {name}": python(name) for name in ("lexora_cli", "lexora_router", "lexora_gateway", "lexora_sim")},
}


@pytest.fixture(scope="module")
def engine() -> Iterator[Simulator]:
    with Simulator("--itl-ms", "0", "--model", SECOND, model=MODEL) as simulator:
        yield simulator


def run(
    *arguments: str, cwd: Path, command: list[str] = LEXORA, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("LEXORA_")}
    return subprocess.run(
        [*command, *arguments], capture_output=True, text=True, timeout=30, env=clean | (env or {}), cwd=cwd, check=False
    )


def reached_from_elsewhere(port: int) -> bool:
    """Whether another address than 127.0.0.1, here of loopback as well, leads to the port."""
    try:
        socket.create_connection(("127.0.0.2", port), timeout=5).close()
    except ConnectionRefusedError:
        return False
    return True


@pytest.mark.parametrize(
    ("arguments", "env", "elsewhere"),
    [
        (("serve", *FREE_PORTS), {}, False),
        (("serve", *FREE_PORTS), UNIT_ENVIRONMENT, True),
        (("serve", *FREE_PORTS, "--host", "0.0.0.0"), {}, True),
        (("router", "--grpc-port", "0", "--metrics-port", "0"), {}, False),
        (("router", "--grpc-port", "0", "--metrics-port", "0", "--host", "0.0.0.0"), {}, True),
        (("gateway", "--port", "0", "--router", "127.0.0.1:9"), {}, False),
    ],
    ids=["serve", "unit", "serve-host", "router", "router-host", "gateway"],
)
def test_only_this_machine_is_served_unless_it_is_said(
    arguments: tuple[str, ...], env: dict[str, str], elsewhere: bool, tmp_path: Path
) -> None:
    with Process([*LEXORA, *arguments], env=env, cwd=tmp_path) as process:
        line = plain(process.wait_for(r".*\bserving\b.*").group(0))
        ports = [int(port) for name, port in re.findall(r"\b(http|grpc|metrics)=\S*?:(\d+)", line) if name]
        assert len(ports) == (1 if arguments[0] == "gateway" else 2), line
        assert [reached_from_elsewhere(port) for port in ports] == [elsewhere] * len(ports)


def test_url_and_model_need_no_file_and_look_for_none(engine: Simulator, tmp_path: Path) -> None:
    (tmp_path / "lexora_config.yaml").write_text("routing: {backends: {other: {url: 'http://127.0.0.1:9'}}}\n")
    given = ("--url", engine.url, "--model", SECOND)
    with Process([*LEXORA, "serve", *given, *FREE_PORTS], cwd=tmp_path, fresh=True) as process:
        base = process.wait_for(r"\bserving\b.*http=(\S+)").group(1)
        body = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 2}
        answer = httpx.post(f"{base}/chat", json=body).raise_for_status()
        assert answer.headers["x-lexora-backend"] == "vllm"
        assert json.loads(engine.posts()[-1]["body"])["model"] == SECOND
    checked = run("check", *given, cwd=tmp_path)
    assert (checked.returncode, checked.stderr) == (0, "")
    assert f"answers vllm {engine.url}" in checked.stdout


def test_url_may_be_given_again_for_a_replica_and_wins_over_the_environment(engine: Simulator, tmp_path: Path) -> None:
    with Simulator(model=MODEL) as spare:
        given = ("--url", engine.url, "--url", spare.url)
        for name in ("LEXORA_VLLM__URL", "LEXORA_VLLM__URLS"):
            env = {name: "http://127.0.0.1:9" if name.endswith("URL") else "[http://127.0.0.1:9]"}
            found = json.loads(run("check", "--json", *given, cwd=tmp_path, env=env).stdout)
            assert [endpoint["endpoint"] for endpoint in found["endpoints"]] == [engine.url, spare.url]


@pytest.mark.parametrize(
    ("arguments", "env", "said"),
    [
        (("--url", "gpu1:8000"), {}, "--url: vllm.url: "),
        (("--url", "http://gpu1:8000", "--url", "http://gpu1:8000"), {}, "--url: vllm.urls[1]: is listed twice"),
        (("--url", "http://gpu1:8000", "--config", "fleet.yaml"), {}, "there are routing.backends in fleet.yaml:"),
        (
            ("--url", "http://gpu1:8000"),
            {"LEXORA_ROUTING__BACKENDS": "{main: {url: 'http://gpu2:8000'}}"},
            "there are routing.backends in LEXORA_ROUTING__BACKENDS",
        ),
    ],
)
def test_a_url_that_would_not_be_served_is_a_mistake(
    arguments: tuple[str, ...], env: dict[str, str], said: str, tmp_path: Path
) -> None:
    (tmp_path / "fleet.yaml").write_text("routing:\n  backends: {main: {url: 'http://gpu2:8000'}}\n")
    done = run("serve", *arguments, cwd=tmp_path, env=env)
    assert (done.returncode, done.stdout) == (1, "")
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_variable_that_replaces_the_address_of_the_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "lexora_config.yaml").write_text("server:\n  host: 127.0.0.1\n")
    checked = run("check", "--no-probe", cwd=tmp_path, env=UNIT_ENVIRONMENT)
    assert "LEXORA_SERVER__HOST: server.host: wins over lexora_config.yaml:2" in checked.stderr


def test_init_writes_the_commented_file_once(tmp_path: Path) -> None:
    example = (REPOSITORY / "config/lexora_config.yaml").read_text()
    first = run("init", cwd=tmp_path)
    assert (first.returncode, first.stdout) == (0, "")
    assert "lexora check --config lexora_config.yaml" in first.stderr
    written = tmp_path / "lexora_config.yaml"
    assert written.read_text() == example
    written.write_text("server: {port: 1}\n")
    again = run("init", cwd=tmp_path)
    assert (again.returncode, again.stderr) == (1, "lexora: lexora_config.yaml is there already; --force replaces it\n")
    assert written.read_text() == "server: {port: 1}\n"
    assert run("init", "--force", cwd=tmp_path).returncode == 0
    assert written.read_text() == run("init", "-", cwd=tmp_path).stdout == example
    lost = run("init", "no/such/folder.yaml", cwd=tmp_path)
    assert (lost.returncode, lost.stderr) == (1, "lexora: cannot write no/such/folder.yaml: No such file or directory\n")


def test_the_wheel_carries_what_init_writes(tmp_path: Path) -> None:
    built = run("build", "-t", "wheel", "-d", str(tmp_path), command=python("hatchling"), cwd=REPOSITORY)
    assert built.returncode == 0, built.stderr
    [wheel] = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    # The folder comes before the clone on the path, so this is the wheel's own command.
    done = run("init", "-", cwd=tmp_path, env={"PYTHONPATH": str(tmp_path / "site")})
    assert done.stdout == (REPOSITORY / "config/lexora_config.yaml").read_text()
    there = run("-c", "import lexora_cli; print(lexora_cli.__file__)", command=[sys.executable], cwd=tmp_path / "site")
    assert there.stdout.startswith(str(tmp_path / "site"))


@pytest.mark.parametrize("name", OWN_NAMES)
def test_every_program_says_its_own_name(name: str, tmp_path: Path) -> None:
    asked = run("--help", command=OWN_NAMES[name], cwd=tmp_path)
    refused = run("--nonsense", command=OWN_NAMES[name], cwd=tmp_path)
    assert (asked.returncode, refused.returncode) == (0, 2)
    for text in (asked.stdout, refused.stderr):
        assert re.search(rf"(?i)usage: {re.escape(name)} ", text), text


def test_an_http_port_given_as_the_router_is_named_as_that(engine: Simulator, tmp_path: Path) -> None:
    with Process([*LEXORA, "serve", "--url", engine.url, *FREE_PORTS], cwd=tmp_path) as process:
        base = process.wait_for(r"\bserving\b.*http=(\S+)").group(1)
        address = base.removeprefix("http://")
        wanted = (
            f"lexora: {address} is an HTTP port: --router takes the router's gRPC port, which is usually 50051 (HTTP: 8001)\n"
        )
        for command in (["status"], ["models"], ["chat", "hi"], ["top", "--once"], ["reload"], ["explain"]):
            done = run(*command, "--router", address, cwd=tmp_path)
            assert (done.returncode, done.stdout, done.stderr) == (1, "", wanted)
        with Process([*LEXORA, "gateway", "--router", address, "--port", "0"], cwd=tmp_path) as facade:
            http = facade.wait_for(r"\bserving\b.*http=(\S+)").group(1)
            assert httpx.get(f"{http}/v1/models").status_code == 503
            facade.wait_for(r"router_unreachable.*--router names an HTTP port.*50051")
