"""The cases: what is asked, how long, and how much CPU a gateway may spend on it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Unit = Literal["call", "chunk"]


@dataclass(frozen=True)
class Case:
    """One load. `bar` is the most CPU per unit in µs; a count of requests makes a run of fixed work."""

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
        seconds = 0.5 if quick and direct else 1.0 if quick or direct else 3.0
        return [*self.options, "--seconds", str(seconds), "--limit", str(seconds + 20)]


# Spread over no multiple of the tokens' 10 ms, else all streams fall into step: a token every 50 us, not bursts of 100.
RAMP_MS = "1037"

CASES = (
    Case("unary-1", "unary, 1 at a time", "call", None, ("--connections", "1")),
    Case("unary-32", "unary, 32 at a time", "call", 350, ("--connections", "32")),
    Case(
        "stream-32",
        "streams of 64 tokens back to back, 32 at a time",
        "chunk",
        16,
        ("--stream", "--tokens", "64", "--connections", "32"),
    ),
    Case(
        "steady-200",
        "200 steady streams, a token every 10 ms",
        "chunk",
        50,
        ("--stream", "--tokens", "100", "--model", "bench-100-10", "--connections", "200", "--ramp", RAMP_MS),
        count=600,
        quick_count=400,
    ),
)
NAMES = tuple(case.name for case in CASES)

WARM_UP = (("--connections", "8"), ("--stream", "--tokens", "64", "--connections", "8"))
LEAVERS = 20
LEAVING = (
    *("--stream", "--model", "bench-300-100", "--hang-up", "3"),
    *("--connections", str(LEAVERS), "--count", str(LEAVERS), "--limit", "15"),
)
