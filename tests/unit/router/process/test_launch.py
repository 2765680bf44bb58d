import asyncio
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from lexora_router.config import Config
from lexora_router.process import launch
from lexora_router.process.listening import GRPC, HTTP, CannotListen, address, listen, listening_address
from lexora_router.process.source import ConfigSource


@pytest.fixture(autouse=True)
def nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """No file of the machine has a say, and the logs of other tests stay as they are."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("lexora_router.config.load.SEARCH", ())
    monkeypatch.setattr("lexora_router.process.launch.configure_logs", lambda *_: Writer())
    with structlog.testing.capture_logs():
        yield


class Writer:
    def close(self) -> None: ...


class Served:
    """A serve function that keeps the configuration it got, and raises what it is told to."""

    def __init__(self, error: Exception | None = None) -> None:
        self.config: Config | None = None
        self.source: ConfigSource | None = None
        self._error = error

    async def __call__(self, config: Config, source: ConfigSource) -> None:
        self.config, self.source = config, source
        if self._error:
            raise self._error


def test_options_win_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("server: {port: 1, grpc_port: 2, host: 10.0.0.1}")
    served = Served()
    assert launch.launch(str(file), {"server.port": 0, "server.host": None, "server.grpc_port": None}, served) == 0
    assert served.config is not None
    server = served.config.server
    assert (server.port, server.grpc_port, server.host) == (0, 2, "10.0.0.1")
    file.write_text("server: {port: 1, grpc_port: 3}")
    assert served.source is not None
    again = served.source.load().config.server
    assert (again.port, again.grpc_port, again.host) == (0, 3, "127.0.0.1"), "options win at a reload too"


def test_a_wrong_configuration_starts_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("server: {prot: 1}\nloging: {}")
    served = Served()
    assert launch.launch(str(file), {}, served) == 1
    assert served.config is None
    told = capsys.readouterr().err
    assert "2 problems:" in told
    assert "did you mean port?" in told
    assert "did you mean logging?" in told


def test_an_address_that_cannot_be_had_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    error = CannotListen("0.0.0.0:80", PermissionError(13, "Permission denied"), HTTP)
    assert launch.launch(None, {}, Served(error)) == 1
    wanted = "lexora: cannot listen on 0.0.0.0:80: Permission denied; change server.port (--port)\n"
    assert capsys.readouterr().err == wanted


def test_warnings_are_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEXORA_VLLM__API_KEY_ENV", "NO_SUCH_KEY")
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    with structlog.testing.capture_logs() as logs:
        assert launch.launch(None, {}, Served()) == 0
    assert any(line["log_level"] == "warning" and "NO_SUCH_KEY" in line["warning"] for line in logs)


def test_bugs_are_not_hidden() -> None:
    with pytest.raises(KeyError):
        launch.launch(None, {}, Served(KeyError("x")))


def test_a_hangup_ends_nothing() -> None:
    seen = []

    async def main() -> None:
        hangup = launch.hangup_event()
        for number in range(2):
            os.kill(os.getpid(), signal.SIGHUP)
            await asyncio.wait_for(hangup.wait(), 20)
            hangup.clear()
            seen.append(number)
        asyncio.get_running_loop().remove_signal_handler(signal.SIGHUP)

    launch.run(main())
    assert seen == [0, 1]


def test_a_taken_port_names_the_port_and_its_setting() -> None:
    with listen("127.0.0.1", 0, HTTP) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(
            CannotListen, match=rf"^cannot listen on 127\.0\.0\.1:{port}: Address already in use; change .*grpc-port"
        ):
            listen("127.0.0.1", port, GRPC)


def test_a_wrong_host_names_the_host_setting() -> None:
    with pytest.raises(CannotListen, match=r"no such host name or address; change server\.host \(--host\)$"):
        listen("no-such-host.invalid", 0, HTTP)
    with pytest.raises(CannotListen, match=r"change server\.host \(--host\)$"):
        listen("192.0.2.1", 0, HTTP)


def test_addresses_as_people_write_them() -> None:
    assert address("::1", 80) == "[::1]:80"
    assert address("unix:/run/x", 0) == "unix:/run/x"
    with listen("127.0.0.1", 0, HTTP) as listener:
        assert listening_address(listener) == f"127.0.0.1:{listener.getsockname()[1]}"
        assert not listener.getblocking()
        assert listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
