"""Medians, verdicts, problems and the three forms of the report."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tests.bench import show
from tests.bench.__main__ import parse
from tests.bench.cases import CASES
from tests.bench.measure import Round
from tests.bench.summary import Summary, summarise

UNARY = next(case for case in CASES if case.name == "unary-32")
STEADY = next(case for case in CASES if case.name == "steady-200")


def run(cpu: float | None, delay: float, **more: Any) -> dict[str, Any]:
    spread = {"n": 9, "p50": delay, "p90": delay, "p99": 2 * delay, "max": 9 * delay}
    result = {
        **dict.fromkeys(("latency_us", "ttft_us", "gap_us", "lag_us"), spread),
        **{"cpu_us": cpu, "per_second": 100.0, "ok": 9, "errors": {}, "first_error": ""},
        **{"cores": 0.5, "rig_cores": 0.2, "other_cores": 0.0},
    }
    return {**result, **more}


def a_round(cpu: float, **more: Any) -> Round:
    targets = {"direct": run(None, 10.0), "gateway": run(cpu, 110.0, **more), "baseline": run(cpu / 2, 60.0)}
    return Round(
        startup_s={"gateway": 1.0},
        idle_mib={"gateway": 40.0},
        peak_mib={"gateway": 50.0},
        cases={UNARY.name: targets, STEADY.name: targets},
        aborts={"left": 20, "aborted": 20, "seconds": 0.02},
    )


def summary(*rounds: Round) -> Summary:
    return summarise(rounds, [UNARY, STEADY])


def test_the_median_of_the_rounds_counts() -> None:
    found = summary(a_round(45), a_round(400), a_round(49)).rows
    assert [row.cpu_us for row in found] == [49, 49]
    assert [row.floor_us for row in found] == [24.5, 24.5]
    assert [(row.added_p50, row.added_p99) for row in found] == [(100, 200), (100, 200)]
    assert [row.lag_p50 for row in found] == [None, 110]
    assert [row.over for row in found] == [False, False]


def test_a_bar_is_met_exactly_and_broken_above() -> None:
    assert [row.over for row in summary(a_round(50)).rows] == [False, False]
    over = summary(a_round(50.1))
    assert [row.over for row in over.rows] == [False, True]
    assert over.over
    assert over.problems == ()


def test_wrong_answers_are_problems() -> None:
    found = summary(a_round(40, errors={"no_done": 3}, first_error="no_done: status 200"), a_round(40))
    assert found.problems == (
        "round 1, unary-32, gateway: 3 no_done (no_done: status 200)",
        "round 1, steady-200, gateway: 3 no_done (no_done: status 200)",
    )
    assert summary(a_round(40, ok=0)).problems


def test_an_engine_that_did_not_see_its_clients_leave_is_a_problem() -> None:
    deaf = replace(a_round(40), aborts={"left": 20, "aborted": 19, "seconds": 5.0})
    assert summary(deaf).problems == ("round 1: 20 clients left, the engine saw 19 go",)
    assert summary(deaf).aborts == "19 of 20 within 5,000 ms"


def test_a_crowded_machine_is_a_warning() -> None:
    assert summary(a_round(40)).warnings == ()
    assert "0.40 CPUs" in summary(a_round(40, other_cores=0.8)).warnings[0]  # the relay's runs had 0
    assert "rig itself" in summary(a_round(40, rig_cores=0.99)).warnings[0]


def test_the_table_says_what_passed() -> None:
    text = show.table(summary(a_round(60)), colour=False)
    unary, steady = text.splitlines()[2:4]
    assert unary.startswith(UNARY.title)
    assert "60.0 /call" in unary
    assert "PASS" in unary
    assert "30.0 (x2.00)" in unary
    assert "60.0 /chunk" in steady
    assert "OVER" in steady
    assert "110 µs (10 µs)" in steady
    assert "\033" not in text
    assert "\033[31mOVER\033[0m" in show.table(summary(a_round(60)), colour=True)


def test_markdown_has_one_width() -> None:
    lines = show.markdown(summary(a_round(60)), "2 CPUs").splitlines()
    assert {line.count("|") for line in lines[:4]} == {len(show.HEAD) + 1}
    assert "- 2 CPUs" in lines


def test_plain_lines_are_key_and_value() -> None:
    lines = dict(line.split("=", 1) for line in show.plain(summary(a_round(60))).splitlines())
    assert lines["unary-32.cpu_us_per_call"] == "60.0"
    assert lines["unary-32.verdict"] == "pass"
    assert lines["unary-32.lag_p50_us"] == "-"
    assert lines["steady-200.verdict"] == "over"
    assert lines["problems"] == "0"


def test_arguments_of_a_case() -> None:
    assert UNARY.arguments(quick=False, direct=False)[-4:] == ["--seconds", "3.0", "--limit", "23.0"]
    assert UNARY.arguments(quick=True, direct=True)[-4:-2] == ["--seconds", "0.5"]
    assert STEADY.arguments(quick=False, direct=False)[-4:-2] == ["--count", "600"]
    assert STEADY.arguments(quick=True, direct=False)[-4:-2] == ["--count", "400"]


@pytest.mark.parametrize(
    "wrong",
    [
        ["--only", "nothing"],
        ["--url", "http://127.0.0.1:1"],
        ["--url", "http://127.0.0.1:1", "--pid", "1"],
        ["--url", "http://example.com:80", "--pid", "1", "--engine-port", "2"],
        ["--rounds", "0"],
        ["--plain", "--markdown"],
    ],
)
def test_wrong_options_end_with_2(wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(wrong)
    assert ended.value.code == 2
    assert "error:" in capsys.readouterr().err


def test_right_options() -> None:
    options = parse(["--url", "http://127.0.0.1:8001", "--pid", "7", "--engine-port", "9100", "--only", "unary-1"])
    assert (options.url, options.pid, options.engine_port, options.only) == (8001, 7, 9100, ("unary-1",))
