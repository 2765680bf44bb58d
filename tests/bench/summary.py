"""Rounds to figures: medians over the rounds, for each figure what each target has, its ratio and its bar."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.bench.cases import STEADY_SPAN_US
from tests.bench.measure import DIRECT, Round
from tests.bench.targets import LEXORA, VLLM_ROUTER

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from tests.bench.cases import Case
    from tests.bench.engine import Json

CROWDED = 0.15  # CPUs busy with something else; above that the figures are not to be trusted
STEADY = "steady-200"
START_S, IDLE_MIB = 0.7, 85.0
# Of the steady streams: milliseconds that the gateway adds, and how much longer than it should the slowest stream may take.
TTFT_P50_MS, TTFT_P99_MS, LAG_P99_MS, PACE_PERCENT = 0.6, 6.0, 4.0, 1.0
BODY_US = 2000.0


@dataclass(frozen=True)
class Figure:
    """A row of the table: medians by target in `unit`. `bar` is the most that Lexora's may be: in `unit`, or as `ratio`."""

    name: str
    title: str
    unit: str
    values: Mapping[str, float]
    bar: float | None = None
    relative: bool = False

    @property
    def ratio(self) -> float | None:
        """Lexora's in terms of vllm-router's; None when one of them is missing, or the figure is a difference."""
        mine, other = self.values.get(LEXORA), self.values.get(VLLM_ROUTER)
        return mine / other if mine is not None and other else None

    @property
    def over(self) -> bool | None:
        """True when Lexora is above the bar; None when that cannot be said."""
        found = self.ratio if self.relative else self.values.get(LEXORA)
        return None if self.bar is None or found is None else found > self.bar


@dataclass(frozen=True)
class Summary:
    """All that is printed. `problems` are wrong answers: any makes the run a failure."""

    figures: tuple[Figure, ...]
    aborts: str
    problems: tuple[str, ...]
    warnings: tuple[str, ...]


def summarise(rounds: Sequence[Round], cases: Sequence[Case]) -> Summary:
    """The summary of one or more rounds of the same cases."""
    return Summary(
        figures=tuple(_figures(rounds, cases)),
        aborts=_aborts(rounds),
        problems=tuple(_problems(rounds)),
        warnings=tuple(_warnings(rounds)),
    )


def _figures(rounds: Sequence[Round], cases: Sequence[Case]) -> Iterator[Figure]:
    for case in cases:
        cpu = _medians(rounds, case, lambda run, direct: run["cpu_us"])
        if case.name == "body-1m":
            yield Figure(case.name, case.title, "µs/call", cpu, BODY_US)
        else:
            yield Figure(case.name, case.title, f"µs/{case.unit}", cpu, case.bar, relative=True)
    for case in cases:
        if case.name == STEADY:
            yield from _steady(rounds, case)
        elif case.name == "unary-1":
            yield Figure(
                "added-1", "unary, 1 at a time: time added, p50", "ms", _medians(rounds, case, _added("latency_us", "p50"))
            )
        elif case.name == "unary-32":
            rate = _medians(rounds, case, lambda run, direct: run["per_second"])
            yield Figure("rate-32", "unary, 32 at a time: answers on one core", "1/s", rate)
    if not rounds:
        return
    yield Figure("idle", "memory when started", "MiB", _facts([r.idle_mib for r in rounds]), IDLE_MIB)
    yield Figure("peak", "memory at most", "MiB", _facts([r.peak_mib for r in rounds]))
    yield Figure("start", "start to first answer", "s", _facts([r.startup_s for r in rounds]), START_S)


def _steady(rounds: Sequence[Round], case: Case) -> Iterator[Figure]:
    figures: dict[str, tuple[str, str, float, Callable[[Json, Json], float]]] = {
        "ttft-p50": ("time to first token added, p50", "ms", TTFT_P50_MS, _added("ttft_us", "p50")),
        "ttft-p99": ("time to first token added, p99", "ms", TTFT_P99_MS, _added("ttft_us", "p99")),
        "lag-p99": ("a token under way, p99", "ms", LAG_P99_MS, lambda run, direct: float(run["lag_us"]["p99"]) / 1000),
        "pace": ("the slowest is late by", "%", PACE_PERCENT, lambda run, direct: _late_percent(run["span_us"]["max"])),
    }
    for name, (title, unit, bar, figure) in figures.items():
        yield Figure(name, f"steady streams: {title}", unit, _medians(rounds, case, figure), bar)


def _late_percent(span_us: float) -> float:
    return (span_us / STEADY_SPAN_US - 1) * 100


def _added(delay: str, quantile: str) -> Callable[[Json, Json], float]:
    return lambda run, direct: float(run[delay][quantile] - direct[delay][quantile]) / 1000


def _medians(rounds: Sequence[Round], case: Case, figure: Callable[[Json, Json], float | None]) -> dict[str, float]:
    """By target, over the rounds; `figure` gets the target's run and the direct one of the same round."""
    runs = [r.cases[case.name] for r in rounds]
    return _facts([{t: x for t in run if t != DIRECT and (x := figure(run[t], run[DIRECT])) is not None} for run in runs])


def _facts(rounds: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {target: statistics.median(each[target] for each in rounds if target in each) for target in rounds[0]}


def _aborts(rounds: Sequence[Round]) -> str:
    runs = [r.aborts for r in rounds if r.aborts]
    if not runs:
        return "not looked at"
    seen, left = sum(run["aborted"] for run in runs), sum(run["left"] for run in runs)
    return f"{seen} of {left} within {max(run['seconds'] for run in runs) * 1e3:,.0f} ms"


def _problems(rounds: Sequence[Round]) -> list[str]:
    found = []
    for number, r in enumerate(rounds, 1):
        for case, runs in r.cases.items():
            for target in (DIRECT, LEXORA):  # the others are not under test
                if errors := runs[target]["errors"]:
                    kinds = ", ".join(f"{count} {kind}" for kind, count in errors.items())
                    found.append(f"round {number}, {case}, {target}: {kinds} ({runs[target]['first_error']})")
                if not runs[target]["ok"]:
                    found.append(f"round {number}, {case}, {target}: no answer was right")
        if r.aborts and not 0 < r.aborts["left"] <= r.aborts["aborted"]:
            found.append(f"round {number}: {r.aborts['left']} clients left, the engine saw {r.aborts['aborted']} go")
    return found


def _warnings(rounds: Sequence[Round]) -> list[str]:
    runs = [run for r in rounds for case in r.cases.values() for target, run in case.items() if target != DIRECT]
    crowd = statistics.median(run["other_cores"] for run in runs) if runs else 0.0
    found = []
    if crowd > CROWDED:
        found.append(f"others kept {crowd:.2f} CPUs busy meanwhile: measure again on a quiet machine")
    if any(run["rig_cores"] > 0.95 for run in runs):
        found.append("the rig itself had a CPU full in some case: its latencies hold the rig's own delay")
    return found
