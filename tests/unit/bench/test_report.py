"""Medians, ratios, bars, problems, and the forms of the report."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from tests.bench import document, plot, show
from tests.bench.__main__ import PARTS, main, parse
from tests.bench.cases import CASES, NAMES
from tests.bench.measure import Round
from tests.bench.pairs import Pair
from tests.bench.results import Results
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


@pytest.fixture
def saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run of everything that was saved, beside a page of documentation."""
    (tmp_path / "performance.md").write_text(f"before\n{document.BEGIN}\nold\n{document.END}\nafter\n")
    monkeypatch.setattr(document, "DOCS", tmp_path)
    sweep = {f"unary-{n}": {"direct": run(None, 9.0), "lexora": run(50.0 + n, 100.0 * n)} for n in (1, 8, 64)}
    sweep |= {f"steady-{n}": {"lexora": run(20.0, 300.0), "relay": run(None, 0.0, ok=0)} for n in (25, 400)}
    file = tmp_path / "new" / "results.json"
    Results("2 CPUs", [a_round(54), a_round(54)], PAIRS, sweep).write(file)
    return file


def test_the_documentation_gets_tables_and_plot(saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = tmp_path / "pictures" / "plot.svg"
    assert main(["--from", str(saved), "--docs", "--plot", str(picture), "--plain"]) == 0
    assert f"{UNARY.name}.ratio=1.800" in capsys.readouterr().out
    text = (tmp_path / "performance.md").read_text()
    assert text.startswith(f"before\n{document.BEGIN}\n")
    assert text.endswith(f"![CPU and latency against load](performance.svg)\n\n{document.END}\nafter\n")
    assert "old" not in text
    assert f"| {UNARY.title} | µs/call | 30.0 | 54.0 | x1.80 | x1.8 | kept |" in text
    assert "| ten, many | µs | 100 | 109 | x1.09 | x1.1 | kept |" in text
    assert "- 2 CPUs" in text
    assert picture.read_text() == (tmp_path / "performance.svg").read_text()
    drawing, svg = ET.fromstring(picture.read_text()), "{http://www.w3.org/2000/svg}"
    circles = drawing.findall(f".//{svg}circle")
    assert len(circles) == 2 * 3 + 2 * 2  # four panels, one line each: neither direct runs nor those without an answer
    assert all(0 < float(circle.attrib[axis]) < 430 for circle in circles for axis in ("cx", "cy"))
    assert {"Lexora", "CPU, µs per unary call"} <= {text.text for text in drawing.iter(f"{svg}text")}
    assert main(["--from", str(saved), "--strict", "--plot", str(picture)]) == 1, "the bars count as in a run"


def test_what_cannot_be_written_at_the_end_is_said_at_the_begin(
    saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(*options: str) -> str:
        with pytest.raises(SystemExit) as ended:
            parse(list(options))
        assert ended.value.code == 2
        return capsys.readouterr().err

    assert "No such file" in refused("--from", str(tmp_path / "nothing"))
    assert "leave out --only" in refused("--from", str(saved), "--quick")
    (tmp_path / "other.json").write_text('{"setting": ""}')
    assert "other.json holds no results of a benchmark (KeyError('rounds'))" in refused("--from", str(tmp_path / "other.json"))
    Results("2 CPUs", [a_round(54)]).write(tmp_path / "loads.json")
    assert "lacks one of them" in refused("--from", str(tmp_path / "loads.json"), "--docs")
    (tmp_path / "performance.md").write_text("no place\n")
    assert "performance.md has no place for the tables" in refused("--docs")


def test_the_page_of_the_documentation_has_its_place() -> None:
    assert document.page()


@pytest.mark.parametrize("values", [[1.0], [0.0009999999999999999, 7.0], [3.0, 3.0], [99.0, 1000.0]])
def test_the_ticks_of_an_axis_have_the_values_between_them(values: list[float]) -> None:
    ticks = plot._ticks(values)
    assert ticks[0] <= min(values) <= max(values) <= ticks[-1]
    assert ticks[0] < ticks[-1]


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
