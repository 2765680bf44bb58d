"""What came of loading the configuration again: the last time, and how often."""

import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

# A file of 1 MiB may be wrong in every line; no reader needs more.
MAX_LINES = 1000


class Result(StrEnum):
    """How a reload ended."""

    APPLIED = "applied"
    UNCHANGED = "unchanged"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Reload:
    """One reload: `trigger` is rpc, signal or file, `at` is in seconds since 1970.

    `problems` say why it was refused, `warnings` what is probably not meant. `changed` are the keys with other values than
    before, `restart` those of them that are read at the start only. `good` and `bad` count reloads up to this one: after which
    the configuration in force was the one asked for, and which were refused.
    """

    result: Result
    trigger: str
    at: float
    problems: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    restart: tuple[str, ...] = ()
    good: int = 0
    bad: int = 0


class ReloadLog:
    """Counts reloads, and remembers the last one (None before the first). `clock` gives seconds since 1970."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self.last: Reload | None = None
        self.counts: Counter[Result] = Counter()

    def add(
        self,
        result: Result,
        trigger: str,
        *,
        problems: Iterable[str] = (),
        warnings: Iterable[str] = (),
        changed: Iterable[str] = (),
        restart: Iterable[str] = (),
    ) -> Reload:
        """Note a reload that is over."""
        lists = {"problems": problems, "warnings": warnings, "changed": changed, "restart": restart}
        self.counts[result] += 1
        bad = self.counts[Result.REFUSED]
        kept = {name: _bounded(lines) for name, lines in lists.items()}
        self.last = Reload(result, trigger, self._clock(), **kept, good=self.counts.total() - bad, bad=bad)
        return self.last


class ReloadCollector:
    """The metrics of reloads, read at scrape time."""

    def __init__(self, log: ReloadLog) -> None:
        self._log = log

    def collect(self) -> Iterable[Metric]:
        """How many by result, and whether the last one was good; the start counts as one."""
        reloads = CounterMetricFamily("lexora_config_reloads", "Reloads of the configuration.", labels=["result"])
        for result in Result:
            reloads.add_metric([result.value], self._log.counts[result])
        last = GaugeMetricFamily("lexora_config_last_reload_success", "0 when the last reload was refused, else 1.")
        last.add_metric([], self._log.last is None or self._log.last.result is not Result.REFUSED)
        return reloads, last


def _bounded(lines: Iterable[str]) -> tuple[str, ...]:
    found = tuple(lines)
    return found if len(found) <= MAX_LINES else (*found[:MAX_LINES], f"... and {len(found) - MAX_LINES} more")
