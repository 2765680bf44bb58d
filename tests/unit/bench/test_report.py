"""Medians, ratios, bars, problems, and the forms of the report."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from tests.bench import document, plot, show
from tests.bench.__main__ import PARTS, parse
from tests.bench.cases import CASES, NAMES
from tests.bench.measure import Round
from tests.bench.pairs import Pair
from tests.bench.summary import Figure, Summary, summarise

if TYPE_CHECKING:
    from pathlib import Path

UNARY, STEADY = (next(case for case in CASES if case.name == name) for name in ("unary-32", "steady-200"))
PAIRS = [Pair("users", "ten, many", "µs", 100.0, 109.0, 1.1), Pair("stream-memory", "a stream", "KiB", None, 21.0, 20.0)]


def run(cpu: float | None, delay: float, **more: Any) -> dict[str, Any]:
    spread = {"n": 9, "p50": delay, "p90": delay, "p99": 2 * delay, "max": 995_000.0}
    result = {
        **dict.fromkeys(("latency_us", "ttft_us", "gap_us", "lag_us", "span_us"), spread),
        **{"cpu_us": cpu, "per_second": 100.0, "ok": 9, "errors": {}, "first_error": ""},
        **{"cores": 0.5, "rig_cores": 0.2, "other_cores": 0.0},
    }
    return {**result, **more}


def a_round(cpu: float, **more: Any) -> Round:
    targets = {"direct": run(None, 10.0), "lexora": run(cpu, 510.0, **more), "vllm-router": run(30.0, 60.0)}
    names = ("lexora", "vllm-router")
    return Round(
        startup_s=dict.fromkeys(names, 0.6),
        idle_mib=dict.fromkeys(names, 90.0),
        peak_mib=dict.fromkeys(names, 95.0),
        cases={UNARY.name: targets, STEADY.name: targets},
        aborts={"left": 20, "aborted": 20, "seconds": 0.02},
    )


def summary(*rounds: Round) -> Summary:
    return summarise(rounds, [UNARY, STEADY])


def figures(*rounds: Round) -> dict[str, Figure]:
    return {figure.name: figure for figure in summary(*rounds).figures}


def test_the_median_of_the_rounds_counts() -> None:
    found = figures(a_round(45), a_round(400), a_round(48))
    assert found[UNARY.name].values == {"lexora": 48, "vllm-router": 30}
    assert found[UNARY.name].ratio == 1.6
    assert found["ttft-p50"].values == {"lexora": 0.5, "vllm-router": 0.05}
    assert found["ttft-p99"].values["lexora"] == 1.0
    assert found["pace"].values["lexora"] == pytest.approx(0.505, abs=0.01)  # 995 ms for 99 gaps of 10 ms


def test_a_bar_is_met_exactly_and_broken_above() -> None:
    """Some are ratios to the peer of the same run, some are absolute."""
    found = figures(a_round(54))
    assert {name: found[name].over for name in (UNARY.name, STEADY.name, "idle", "start", "peak")} == {
        **{UNARY.name: False, STEADY.name: True, "idle": True, "start": False, "peak": None}
    }
    assert figures(a_round(54.1))[UNARY.name].over
    assert [pair.over for pair in PAIRS] == [False, True]


def test_without_the_peer_there_is_no_verdict_on_ratios() -> None:
    alone = a_round(54)
    for runs in alone.cases.values():
        runs.pop("vllm-router", None)  # both cases share them
    found = figures(alone)
    assert (found[UNARY.name].ratio, found[UNARY.name].over) == (None, None)
    assert found["idle"].over


def test_wrong_answers_are_problems() -> None:
    found = summary(a_round(40, errors={"no_done": 3}, first_error="no_done: status 200"), a_round(40))
    assert found.problems == (
        "round 1, unary-32, lexora: 3 no_done (no_done: status 200)",
        "round 1, steady-200, lexora: 3 no_done (no_done: status 200)",
    )
    assert summary(a_round(40, ok=0)).problems


def test_an_engine_that_did_not_see_its_clients_leave_is_a_problem() -> None:
    deaf = replace(a_round(40), aborts={"left": 20, "aborted": 19, "seconds": 5.0})
    assert summary(deaf).problems == ("round 1: 20 clients left, the engine saw 19 go",)
    assert summary(deaf).aborts == "19 of 20 within 5,000 ms"


def test_a_crowded_machine_is_a_warning() -> None:
    assert summary(a_round(40)).warnings == ()
    assert "0.40 CPUs" in summary(a_round(40, other_cores=0.8)).warnings[0]  # the other runs had 0
    assert "rig itself" in summary(a_round(40, rig_cores=0.99)).warnings[0]


def test_the_table_says_what_passed() -> None:
    text = show.table(summary(a_round(54)), PAIRS, colour=False)
    lines = {line.split("  ")[0]: line for line in text.splitlines()}
    assert lines[UNARY.title].split()[-6:] == ["µs/call", "30.0", "54.0", "x1.80", "x1.8", "PASS"]
    assert lines[STEADY.title].endswith("x1.80    x1  OVER")
    assert lines["ten, many"].endswith("x1.09  x1.1  PASS")
    assert lines["a stream"].endswith("20  OVER")
    assert "\033" not in text
    assert "\033[31mOVER\033[0m" in show.table(summary(a_round(54)), PAIRS, colour=True)


def test_plain_lines_are_key_and_value() -> None:
    lines = dict(line.split("=", 1) for line in show.plain(summary(a_round(54)), PAIRS).splitlines())
    assert lines["unary-32.lexora"] == "54.000"
    assert lines["unary-32.ratio"] == "1.800"
    assert lines["unary-32.verdict"] == "pass"
    assert lines["stream-memory.verdict"] == "over"
    assert lines["problems"] == "0"


def test_the_documentation_gets_tables_and_plot(tmp_path: Path) -> None:
    page = tmp_path / "performance.md"
    page.write_text(f"before\n{document.BEGIN}\nold\n{document.END}\nafter\n")
    tables = show.markdown(summary(a_round(54)), PAIRS, "2 CPUs")
    sweep = {f"unary-{n}": {"direct": run(None, 9.0), "lexora": run(50.0 + n, 100.0 * n)} for n in (1, 8, 64)}
    sweep |= {f"steady-{n}": {"lexora": run(20.0, 300.0)} for n in (25, 400)}
    document.write(tables, plot.svg(plot.panels(sweep)), tmp_path)
    text = page.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "old" not in text
    assert f"| {UNARY.title} | µs/call | 30.0 | 54.0 | x1.80 | x1.8 | kept |" in text
    assert "- 2 CPUs" in text
    circles = ET.parse(tmp_path / "performance.svg").findall(".//{http://www.w3.org/2000/svg}circle")
    assert len(circles) == 2 * 3 + 2 * 2  # four panels, one line each: the direct runs are none
    page.write_text("no place\n")
    with pytest.raises(ValueError, match="no place"):
        document.write(tables, "", tmp_path)


@pytest.mark.parametrize(
    "wrong",
    [["--only", "nothing"], ["--rounds", "0"], ["--docs", "--quick"], ["--docs", "--only", "unary-1"]],
)
def test_wrong_options_end_with_2(wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(wrong)
    assert ended.value.code == 2
    assert "error:" in capsys.readouterr().err


def test_what_is_measured_without_being_named() -> None:
    assert parse([]).only == PARTS
    assert parse(["--quick"]).only == NAMES
    assert parse(["--quick", "--only", "users,unary-1"]).only == ("users", "unary-1")
