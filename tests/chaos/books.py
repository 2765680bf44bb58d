"""What everybody says of the same calls: the clients, the log, statistics, metrics, spans, and the engines."""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families

from tests.chaos.mixed_calls import EMBEDDER, LOST, MODEL, NARROW
from tests.chaos.mixed_clients import Seen
from tests.support.otlp import Receiver, Trace
from tests.support.otlp import Seen as Span
from tests.support.servers import Gateway, Simulator
from tests.support.streams import call_lines

Line = dict[str, Any]
RECENT = 200
# What a span calls it, and what the log does.
SPOKEN = {
    "url.path": "path",
    "gen_ai.request.model": "model",
    "gen_ai.request.stream": "stream",
    "http.response.status_code": "status",
    "lexora.backend": "backend",
    "lexora.attempts": "attempts",
    "lexora.priority": "priority",
    "gen_ai.usage.input_tokens": "tokens_in",
    "gen_ai.usage.output_tokens": "tokens_out",
    "gen_ai.usage.cache_read.input_tokens": "tokens_cached",
    "lexora.fallback": "fallback",
    "lexora.resumed": "resumed",
    "lexora.rejected": "rejected",
    "error.type": "error",
}


@dataclass(frozen=True)
class Books:
    """What everybody says of the same calls."""

    seen: dict[str, Seen]
    lines: dict[str, Line]
    written: int  # lines of calls in all
    counted: int  # attempts, by the engines' own counters
    attempts: dict[str, list[dict[str, Any]]]  # as the engines saw them, by request id, in their order
    stats: dict[str, Any]
    metrics: dict[str, Counter[tuple[str, ...]]]  # by name, then by the values of the labels in the order of their names
    recent: list[dict[str, Any]]
    traces: dict[str, Trace]  # by request id

    def check(self, fits: Callable[[str, Line], bool]) -> None:
        """Fail where it does not fit, with all that is known of such calls."""
        wrong = [name for name, line in self.lines.items() if not fits(name, line)]
        shown = [(self.lines[name], self.seen[name], list(map(_short, self.attempts.get(name, [])))) for name in wrong[:3]]
        assert not wrong, f"{len(wrong)} calls, such as {shown}"

    def count(self, key: Callable[[Line], Any]) -> Counter[Any]:
        """Lines by what they say; those that say nothing there are left out."""
        return Counter(found for line in self.lines.values() if (found := key(line)))

    def total(self, field: str) -> int:
        """Sum of what the lines say there."""
        return sum(line.get(field) or 0 for line in self.lines.values())


def _short(attempt: dict[str, Any]) -> dict[str, Any]:
    return {key: attempt[key] for key in ("status", "tokens_sent", "completed", "aborted", "fault", "model")}


def busy(sim: Simulator) -> int:
    told = sim.stats()
    return int(told["running"] + told["waiting"])


def read(gateway: Gateway, sims: list[Simulator], collector: Receiver, seen: dict[str, Seen]) -> Books:
    """Everybody's books, when all is at rest."""
    attempts: dict[str, list[dict[str, Any]]] = {}
    posts = [post for sim in sims for post in sim.requests(100_000) if post["method"] == "POST"]
    for post in sorted(posts, key=lambda post: post["received"]):
        attempts.setdefault(post["headers"]["x-request-id"], []).append(post)
    with httpx.Client(base_url=gateway.http, verify=False) as client:
        told = client.get("/stats").raise_for_status().json()
        text = client.get("/metrics").raise_for_status().text
        recent = client.get("/stats/recent", params={"limit": RECENT}).raise_for_status().json()["calls"]
    counted = sum(sim.stats()["requests"] for sim in sims)
    written = gateway.output.count('"event":"call"')
    return Books(seen, call_lines(gateway), written, counted, attempts, told, _metrics(text), recent, _traces(collector))


def _traces(collector: Receiver) -> dict[str, Trace]:
    """The spans of each call. Fails when a call has more than one of its own."""
    spans: dict[str, list[Span]] = {}
    for span in collector.spans:
        spans.setdefault(span.trace_id, []).append(span)
    traces = [Trace(each) for each in spans.values()]
    found = {trace.root.attributes["lexora.request_id"]: trace for trace in traces}
    assert len(found) == len(traces)
    return found


def _metrics(text: str) -> dict[str, Counter[tuple[str, ...]]]:
    found: dict[str, Counter[tuple[str, ...]]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            values = tuple(sample.labels[name] for name in sorted(sample.labels))
            found.setdefault(sample.name, Counter())[values] += int(sample.value)
    return found


def cancelled(line: Line) -> bool:
    return bool(line["status"] == 499)


def failed(line: Line) -> bool:
    return "error" in line


def label(line: Line) -> str:
    """What the call's model is counted as."""
    return line["model"] if line["model"] in (MODEL, EMBEDDER, NARROW, LOST) else "other"


def endpoint(line: Line) -> str:
    return f"{line['backend']}/{line['endpoint']}" if line["endpoint"] else ""


def hops(line: Line) -> list[tuple[str, str, str]]:
    """The fallbacks of a call: from, reason, to."""
    found = []
    for hop in filter(None, line.get("fallback", "").split(", ")):
        way, _, why = hop.partition(";reason=")
        origin, _, to = way.partition("->")
        found.append((origin, why, to))
    return found


def sums(lines: Iterable[Line], key: Callable[[Line], str]) -> dict[str, dict[str, int]]:
    """What the lines come to by a key, in the words of the statistics."""
    found: dict[str, dict[str, int]] = {}
    for line in lines:
        if not (name := key(line)):
            continue
        counts = found.setdefault(name, dict.fromkeys(COUNTED, 0))
        counts["total"] += 1
        counts["failed"] += failed(line)
        counts["cancelled"] += cancelled(line)
        counts["successful"] += not failed(line) and not cancelled(line)
        counts["tokens_input"] += line["tokens_in"] or 0
        counts["tokens_output"] += line["tokens_out"] or 0
        counts["tokens_cached"] += line.get("tokens_cached", 0)
    return found


COUNTED = ("total", "successful", "failed", "cancelled", "tokens_input", "tokens_output", "tokens_cached")
KEYS: dict[str, Callable[[Line], str]] = {
    "path": lambda line: str(line["path"]),
    "model": label,
    "backend": lambda line: str(line["backend"]),
    "endpoint": endpoint,
    "tenant": lambda line: str(line["tenant"]),
}


def spoken(span: Span) -> dict[str, Any]:
    """What a call's span says, in the words of the log."""
    said = {SPOKEN[name]: value for name, value in span.attributes.items() if name in SPOKEN}
    return said | {"trace_id": span.trace_id, "failed": span.failed}


def expected(line: Line) -> dict[str, Any]:
    """What the span of the call with this line says: nothing of what is empty or zero, but for tokens that were counted."""
    found = {name: line[name] for name in SPOKEN.values() if line.get(name)}
    if line["tokens_out"] is not None:
        found["tokens_out"] = line["tokens_out"]
    if cancelled(line):
        found["error"] = "CANCELLED"
    if line["path"] == "other":
        del found["path"]
    return found | {"trace_id": line["trace_id"], "failed": line["status"] >= 500}
