"""`lexora check`, `chat`, `models`, `status` and `demo` as processes."""

import json
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.process import Process
from tests.support.servers import LEXORA, Gateway, Simulator, calm_config, plain, write_config

MODEL = "qwen3-32b"


@pytest.fixture(scope="module")
def engine() -> Iterator[Simulator]:
    with Simulator("--itl-ms", "10", model=MODEL) as simulator:
        yield simulator


@pytest.fixture(scope="module")
def gateway(engine: Simulator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    config = calm_config(main={"url": engine.url, "models": [MODEL]})
    config["routing"]["strict_models"] = True
    with Gateway(config, tmp_path_factory.mktemp("gateway")) as started:
        yield started


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def lexora(*arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    env = {name: value for name, value in os.environ.items() if not name.startswith("LEXORA_")}
    return subprocess.run(
        [*LEXORA, *arguments],
        input=stdin,
        stdin=subprocess.DEVNULL if stdin is None else None,
        capture_output=True,
        text=True,
        timeout=20,
        env=env,
        check=False,
    )


# -- check


def test_check_tells_the_living_from_the_dead(engine: Simulator, tmp_path: Path) -> None:
    dead = f"http://127.0.0.1:{free_port()}"
    config = calm_config(alive={"url": engine.url, "models": [MODEL]}, dead={"url": dead, "api_key": "sk-hidden"})
    done = lexora("check", "--config", str(write_config(config, tmp_path)))
    assert done.returncode == 2, done.stderr
    headline, failed, advice, answers = done.stdout.splitlines()
    assert headline.startswith("configuration: ")
    assert failed.startswith(f"FAILED  dead {dead}: connection refused"), "problems come first"
    assert advice == "        start the engine, or correct routing.backends.dead.url"
    assert re.fullmatch(rf"answers alive {engine.url}: \S+ ms, models: {MODEL}", answers)
    assert "max_retries" not in done.stdout
    whole = lexora("check", "--all", "--config", str(write_config(config, tmp_path))).stdout
    before, _, keys = whole.partition("\n\n# in force: ")
    assert len(before.splitlines()) == 4
    assert "\n  max_retries: 0\n" in keys
    assert "sk-hidden" not in whole + done.stderr


def test_check_is_content_when_all_is_well(engine: Simulator, tmp_path: Path) -> None:
    file = write_config(calm_config(main={"url": engine.url, "models": [MODEL]}), tmp_path)
    done = lexora("check", "--json", "--config", str(file))
    assert done.returncode == 0
    report = json.loads(done.stdout)
    assert report["ok"] is True
    assert report["endpoints"][0]["models"] == [MODEL]


# -- reload


def test_reload_says_that_the_file_was_loaded_already(engine: Simulator, tmp_path: Path) -> None:
    config = calm_config(main={"url": engine.url, "models": [MODEL]})
    config["reload"] = {"watch": True, "interval": 0.05}
    with Gateway(config, tmp_path) as started:
        config["retry"]["max_retries"] = 2
        write_config(config, tmp_path)
        started.wait_for("configuration_applied")
        done = lexora("reload", "--router", started.grpc)
    headline = r"unchanged: it was put in force \d+ s ago already, when the file changed\n"
    assert re.fullmatch(rf"{headline}  changed: retry\.max_retries\n", done.stdout), done.stdout
    assert (done.returncode, done.stderr) == (0, "")


# -- chat, models, status


def test_chat_answers_once_on_stdout_and_tells_the_cost_on_stderr(gateway: Gateway) -> None:
    done = lexora("chat", "--router", gateway.grpc, "--max-tokens", "12", "hi")
    assert done.returncode == 0, done.stderr
    body = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 12}
    direct = httpx.post(f"{gateway.http}/v1/chat/completions", json=body).json()
    assert done.stdout == direct["choices"][0]["message"]["content"] + "\n"
    assert re.fullmatch(r"main · TTFT \d+ ms · \d+ tokens in, 12 out · \d+ tokens/s\n", done.stderr)


def test_chat_takes_piped_input(gateway: Gateway) -> None:
    arguments = ("chat", "--router", gateway.grpc, "--max-tokens", "5")
    assert lexora(*arguments, stdin="hi\n").stdout == lexora(*arguments, "hi").stdout
    empty = lexora(*arguments, stdin="")
    assert (empty.returncode, empty.stdout) == (2, "")


def test_chat_failures_are_one_line(gateway: Gateway) -> None:
    unknown = lexora("chat", "--router", gateway.grpc, "--model", "nobody", "hi")
    assert (unknown.returncode, unknown.stdout) == (1, "")
    assert re.fullmatch(r"lexora: MODEL_NOT_FOUND: .*`nobody`.*\n", unknown.stderr)
    target = f"127.0.0.1:{free_port()}"
    alone = lexora("chat", "--router", target, "hi")
    assert (alone.returncode, alone.stdout) == (1, "")
    assert re.fullmatch(rf"lexora: no router answers at {target}; .*\n", alone.stderr)


def test_chat_in_a_terminal(gateway: Gateway, engine: Simulator) -> None:
    """Ctrl-C stops an answer and aborts it at the engine, Ctrl-D leaves."""
    keyboard, terminal = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", TAKE_TERMINAL, *LEXORA, "chat", "--router", gateway.grpc, "--max-tokens", "5000"],
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        env=os.environ | {"TERM": "dumb"},
        start_new_session=True,
    )
    os.close(terminal)
    try:
        screen = Screen(keyboard)
        before = engine.stats()["aborts"]
        screen.wait_for("> ")
        screen.type("a long story\n")
        screen.wait_for("a long story\r\n.{40}")
        screen.type("\x03")
        screen.wait_for("stopped")
        screen.type("/model\n")
        screen.wait_for(rf"{MODEL} \(main\)")
        screen.type("\x04")
        assert process.wait(10) == 0
        assert engine.stats()["aborts"] == before + 1
    finally:
        process.kill()
        process.wait()
        os.close(keyboard)


def test_top_in_a_pipe(gateway: Gateway) -> None:
    lexora("chat", "--router", gateway.grpc, "--max-tokens", "3", "hi")
    seen = lexora("top", "--router", gateway.grpc)
    assert (seen.returncode, seen.stderr) == (0, "")
    assert seen.stdout.startswith(f"lexora top {gateway.grpc}  healthy, version ")
    assert re.search(r"^main +http://\S+ +healthy ", seen.stdout, re.MULTILINE)
    assert re.search(rf"^\d\d:\d\d:\d\d +{MODEL} +main +200 ", seen.stdout, re.MULTILINE)
    target = f"127.0.0.1:{free_port()}"
    alone = lexora("top", "--router", target)
    assert (alone.returncode, alone.stdout) == (1, "")
    assert alone.stderr.startswith(f"lexora: no router answers at {target}")


def test_top_in_a_terminal(gateway: Gateway) -> None:
    """It follows the router, and q leaves."""
    keyboard, terminal = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", TAKE_TERMINAL, *LEXORA, "top", "--router", gateway.grpc, "--interval", "0.2"],
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        env=os.environ | {"TERM": "xterm", "COLUMNS": "140", "LINES": "40"},
        start_new_session=True,
    )
    os.close(terminal)
    try:
        screen = Screen(keyboard)
        screen.wait_for("lexora top .*healthy")
        lexora("chat", "--router", gateway.grpc, "--max-tokens", "1", "--model", "asked-while-it-looks", "hi")
        screen.wait_for("asked-while")
        screen.type("q")
        assert process.wait(10) == 0
    finally:
        process.kill()
        process.wait()
        os.close(keyboard)


# Ctrl-C reaches the processes of a terminal's own session only.
TAKE_TERMINAL = "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"


class Screen:
    """What a terminal shows, and its keyboard."""

    def __init__(self, descriptor: int) -> None:
        os.set_blocking(descriptor, False)
        self._descriptor = descriptor
        self.text = ""

    def type(self, text: str) -> None:
        os.write(self._descriptor, text.encode())

    def wait_for(self, pattern: str) -> None:
        deadline = time.monotonic() + 10
        while not re.search(pattern, self.text, re.DOTALL):
            assert time.monotonic() < deadline, f"{pattern!r} did not come:\n{self.text}"
            try:
                self.text += plain(os.read(self._descriptor, 65536).decode("utf-8", "replace"))
            except BlockingIOError:
                time.sleep(0.01)


def test_models_and_status(gateway: Gateway) -> None:
    listed = lexora("models", "--router", gateway.grpc)
    assert listed.returncode == 0
    assert re.search(rf"^{MODEL} +main +vllm +healthy +32,768", listed.stdout, re.MULTILINE)
    report = json.loads(lexora("models", "--router", gateway.grpc, "--json").stdout)
    assert [model["id"] for model in report["models"]] == [MODEL]
    told = lexora("status", "--router", gateway.grpc)
    assert told.returncode == 0
    assert told.stdout.startswith("healthy, version ")
    report = json.loads(lexora("status", "--router", gateway.grpc, "--json").stdout)
    assert report["health"]["backends"]["main"]["status"] == "healthy"
    assert report["stats"]["total_requests"] >= 0


def test_status_of_a_router_whose_backend_is_dead(tmp_path: Path) -> None:
    config = calm_config(main={"url": f"http://127.0.0.1:{free_port()}"})
    with Gateway(config, tmp_path) as alone:
        told = lexora("status", "--router", alone.grpc)
    assert told.returncode == 1
    assert told.stdout.startswith("unhealthy")


# -- demo


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def demo(*arguments: str) -> Process:
    return Process([*LEXORA, "demo", *arguments])


FREE = ("--engine-port", "0", "--port", "0", "--grpc-port", "0")


def test_demo_shows_lines_that_work_and_leaves_nothing_behind() -> None:
    with demo(*FREE) as started:
        started.wait_for(r"Ready\.")
        line = started.wait_for(r"curl -N (http://\S+) -H '(\S+): (\S+)' -d '(.*)'")
        with httpx.stream("POST", line[1], headers={line[2]: line[3]}, content=line[4], timeout=10) as answer:
            assert next(answer.iter_lines()).startswith('data: {"id":')
        auto = started.wait_for(r"curl -i (http://\S+) -H '(\S+): (\S+)' -d '(.*)'")
        chosen = httpx.post(auto[1], headers={auto[2]: auto[3]}, content=auto[4], timeout=10)
        assert chosen.headers["x-lexora-model"].startswith("qwen3-coder;")
        left = children(started.pid)
        assert len(left) == 2
        started.signal(signal.SIGTERM)
        assert started.wait() == 0
        assert not [pid for pid in left if alive(pid)]


def test_demo_takes_free_ports_when_the_usual_ones_are_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with demo("--engine-port", str(port), "--port", str(port), "--grpc-port", str(port)) as started:
            started.wait_for(r"Ready\.")
            assert len(re.findall(rf"port {port} for .* cannot be had", started.output)) == 3
            assert httpx.get(started.wait_for(r"documentation: (http://\S+)\)").group(1)).status_code == 200
            started.signal(signal.SIGINT)
            assert started.wait() == 0


def test_demo_ends_its_children_when_nobody_reads_it_any_more() -> None:
    with subprocess.Popen([*LEXORA, "demo", *FREE], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as started:
        assert started.stdout is not None
        assert started.stderr is not None
        assert "serving" in started.stdout.readline()
        left = children(started.pid)
        started.stdout.close()
        assert started.wait(20) == 0
        assert started.stderr.read() == ""
        assert left
        assert not [pid for pid in left if alive(pid)]


def test_demo_says_when_a_child_dies() -> None:
    with demo(*FREE) as started:
        started.wait_for(r"Ready\.")
        engine, gateway = children(started.pid)
        os.kill(engine, signal.SIGKILL)
        assert started.wait() == 1
        assert "lexora: engine ended with exit code -9" in started.output
        assert not alive(gateway)
