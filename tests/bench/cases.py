"""The loads: what is asked, how long, and how much Lexora may spend on it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Unit = Literal["call", "chunk"]


@dataclass(frozen=True)
class Case:
    """One load. `bar` is the most CPU per unit, as a multiple of vllm-router's in that run. With counts the work is fixed."""

    name: str
    title: str
    unit: Unit
    bar: float | None
    options: tuple[str, ...]
    count: int | None = None
    quick_count: int | None = None

    def arguments(self, *, quick: bool, direct: bool) -> list[str]:
        """Options of the load generator. A direct run is the reference and needs less."""
        if self.count is not None and self.quick_count is not None:
            most = self.quick_count if quick or direct else self.count
            return [*self.options, "--count", str(most), "--limit", "30"]
        seconds = 0.5 if quick or direct else 2.0
        return [*self.options, "--seconds", str(seconds), "--limit", str(seconds + 20)]


# Spread over no multiple of the tokens' 10 ms, else all streams fall into step: a token every 50 us, not bursts of 100.
RAMP_MS = "1037"
STREAMS = ("--stream", "--tokens", "100", "--model", "bench-100-10", "--ramp", RAMP_MS)
STEADY_SPAN_US = 99 * 10_000  # from the first token to the last
MEGABYTE = "1000000"

CASES = (
    Case("unary-1", "unary, 1 at a time", "call", 1.7, ("--connections", "1")),
    Case("unary-32", "unary, 32 at a time", "call", 1.8, ("--connections", "32")),
    Case("unary-128", "unary, 128 at a time", "call", None, ("--connections", "128")),
    Case("body-1m", "unary, a request body of 1 MB", "call", None, ("--connections", "4", "--prompt-bytes", MEGABYTE)),
    Case(
        "stream-32",
        "streams of 64 tokens back to back, 32 at a time",
        "chunk",
        1.0,
        ("--stream", "--tokens", "64", "--connections", "32"),
    ),
    Case(
        "steady-200",
        "200 steady streams, a token every 10 ms",
        "chunk",
        1.0,
        (*STREAMS, "--connections", "200"),
        count=600,
        quick_count=400,
    ),
)
NAMES = tuple(case.name for case in CASES)
UNARY, STREAM = (next(case for case in CASES if case.name == name) for name in ("unary-32", "stream-32"))

# For the plot: CPU and latency as the load grows.
SWEEP = (
    *(Case(f"unary-{n}", str(n), "call", None, ("--connections", str(n))) for n in (1, 2, 4, 8, 16, 32, 64, 128)),
    *(
        Case(f"steady-{n}", str(n), "chunk", None, (*STREAMS, "--connections", str(n)), count=2 * n, quick_count=n)
        for n in (25, 50, 100, 200, 400)
    ),
)

WARM_UP = (("--connections", "8"), ("--stream", "--tokens", "64", "--connections", "8"))
LEAVERS = 20
LEAVING = (
    *("--stream", "--model", "bench-300-100", "--hang-up", "3"),
    *("--connections", str(LEAVERS), "--count", str(LEAVERS), "--limit", "15"),
)
