import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from typer.testing import CliRunner

from lexora.v1.admin_pb2_grpc import AdminServiceServicer, add_AdminServiceServicer_to_server
from lexora.v1.reload_pb2 import (
    RELOAD_RESULT_APPLIED,
    RELOAD_RESULT_REFUSED,
    RELOAD_RESULT_UNCHANGED,
    RELOAD_TRIGGER_FILE,
    RELOAD_TRIGGER_RPC,
    ReloadReport,
    ReloadRequest,
    ReloadResponse,
)
from lexora.v1.stats_pb2 import GetStatsRequest, GetStatsResponse
from lexora_cli.main import app
from lexora_cli.reload_text import lines

REPORTS = [
    ReloadReport(
        result=RELOAD_RESULT_APPLIED,
        trigger=RELOAD_TRIGGER_RPC,
        changed_keys=["retry.max_retries", "server.port"],
        keys_needing_restart=["server.port"],
        warnings=["odd"],
    ),
    ReloadReport(result=RELOAD_RESULT_UNCHANGED),
    ReloadReport(result=RELOAD_RESULT_REFUSED, problems=["one", "two\x1b[2J"]),
]
TOLD = [
    """applied: the new configuration is in force
  warning: odd
  changed: retry.max_retries
  needs a restart: server.port
""",
    "unchanged: nothing to put in force\n",
    "refused: the old configuration stays in force\n  problem: one\n  problem: two\\x1b[2J\n",
]


class Servicer(AdminServiceServicer):
    report = ReloadReport()

    def GetStats(self, request: GetStatsRequest, context: grpc.ServicerContext) -> GetStatsResponse:
        return GetStatsResponse()

    def Reload(self, request: ReloadRequest, context: grpc.ServicerContext) -> ReloadResponse:
        return ReloadResponse(report=self.report)


@pytest.fixture
def served() -> Iterator[tuple[str, Servicer]]:
    with ThreadPoolExecutor(2) as threads:
        server, servicer = grpc.server(threads), Servicer()  # type: ignore[abstract]  # the other rpcs are not asked
        add_AdminServiceServicer_to_server(servicer, server)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        yield f"127.0.0.1:{port}", servicer
        server.stop(0).wait()


@pytest.mark.parametrize(
    ("report", "told", "code"), list(zip(REPORTS, TOLD, (0, 0, 1), strict=True)), ids=["ok", "same", "bad"]
)
def test_what_came_of_it_is_told(served: tuple[str, Servicer], report: ReloadReport, told: str, code: int) -> None:
    target, servicer = served
    servicer.report = report
    result = CliRunner().invoke(app, ["reload", "--router", target])
    assert (result.exit_code, result.stdout) == (code, told)
    result = CliRunner().invoke(app, ["reload", "--router", target, "--json"])
    assert result.exit_code == code
    assert json.loads(result.stdout)["problems"] == list(report.problems)


def test_a_router_that_does_not_answer() -> None:
    result = CliRunner().invoke(app, ["reload", "--router", "127.0.0.1:9"])
    assert result.exit_code == 1
    assert "no router answers at 127.0.0.1:9" in result.stderr


def test_a_result_of_a_later_version_is_told_as_a_number() -> None:
    assert list(lines(ReloadReport(result=77), ReloadReport())) == ["result 77"]  # type: ignore[arg-type]  # open enums carry any number


def test_a_reload_that_came_just_before_is_named() -> None:
    same = ReloadReport(result=RELOAD_RESULT_UNCHANGED, finish_time={"seconds": 1_000})
    quick = ReloadReport(
        result=RELOAD_RESULT_APPLIED,
        trigger=RELOAD_TRIGGER_FILE,
        finish_time={"seconds": 997},
        changed_keys=["retry.max_retries"],
    )
    said = ["unchanged: it was put in force 3 s ago already, when the file changed", "  changed: retry.max_retries"]
    assert list(lines(same, quick)) == said
    for before in (ReloadReport(), ReloadReport(result=RELOAD_RESULT_APPLIED, finish_time={"seconds": 900}), same):
        assert list(lines(same, before)) == ["unchanged: nothing to put in force"]
