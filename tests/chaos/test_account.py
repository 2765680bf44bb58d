"""A thousand mixed calls with faults: statistics, metrics, log, spans, engines and clients tell the same of them."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests.chaos.books import KEYS, RECENT, Books, Line, busy, cancelled, expected, failed, hops, label, read, spoken, sums
from tests.chaos.mixed_calls import CALLS, EMBEDDER, KINDS, LIMITED, LOST, MODEL, NARROW, kind_of, make_all
from tests.support import wire
from tests.support.otlp import Receiver, until
from tests.support.raw_server import closed_port
from tests.support.servers import Gateway, Simulator, base_config
from tests.support.streams import call_lines

SILENCE_SECONDS = 1.5
# What befalls attempts at the first backend that have no fault of their own, by chance.
CHANCES = {
    "status;code=503": 0.04,
    "reset": 0.02,
    "die_after=6;how=fin": 0.04,
    "die_after=9;how=error": 0.03,
    "die_after=7;how=abort": 0.04,
    "empty": 0.01,
}


def config_for(sims: list[Simulator], collector: Receiver) -> dict[str, Any]:
    left, right, spare = (sim.url for sim in sims)
    silence = {"first_token_timeout": SILENCE_SECONDS, "idle_timeout": SILENCE_SECONDS}
    config = base_config(
        main={"urls": [left, right], "models": [MODEL], "fallback_backends": ["spare"], **silence},
        spare={"url": spare, "models": [EMBEDDER], "fallback_models": {LOST: MODEL, MODEL: MODEL}, **silence},
        narrow={"url": spare, "models": [NARROW], "max_concurrency": 2, "queue": {"max_size": 2}},
        gone={"url": f"http://127.0.0.1:{closed_port()}", "models": [LOST], "fallback_backends": ["spare"]},
    )
    del config["routing"]["default_backend"]
    config["retry"] = {"max_retries": 2, "base_delay": 0.01, "budget_floor": 1000.0}
    config["health"] |= {"failure_threshold": 100_000, "min_calls": 100_000}
    config["rate_limit"] = {"default_rate": 10_000, "default_burst": 10_000, "users": {LIMITED: {"rate": 0.001, "burst": 5}}}
    config["telemetry"] = collector.config(metrics_interval=0.5)
    return config | {"failover": {"resume": True}, "logging": {"format": "json"}}


@pytest.fixture(scope="module")
def collector() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


@pytest.fixture(scope="module")
def books(collector: Receiver, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Books]:
    with ExitStack() as stack:
        arguments = ("--itl-ms", "2", "--prompt-tokens-details", "--embedding-model", EMBEDDER, "--model", NARROW)
        sims = [stack.enter_context(Simulator(*arguments, model=MODEL)) for _ in range(3)]
        gateway = stack.enter_context(Gateway(config_for(sims, collector), tmp_path_factory.mktemp("gateway")))
        for sim in sims[:2]:
            for fault, probability in CHANCES.items():
                sim.fault(fault, probability=probability)
        seen = asyncio.run(make_all(gateway.http, gateway.grpc))
        wire.wait_idle(gateway.http)
        wire.wait_until(lambda: not seen.keys() - call_lines(gateway).keys(), f"lines of all calls: {gateway.output[-2000:]}")
        wire.wait_until(lambda: not any(busy(sim) for sim in sims), "idle engines")
        until(lambda: len([span for span in collector.spans if span.kind == "server"]), lambda calls: calls >= len(seen))
        yield read(gateway, sims, collector, seen)


# -- each call: the client, the line and the engines


def test_every_call_has_its_line(books: Books) -> None:
    assert len(books.seen) == books.written == CALLS
    assert books.seen.keys() == books.lines.keys()
    assert {name.rpartition("-")[0] for name in books.seen} == KINDS.keys()


def test_the_clients_saw_what_the_log_says(books: Books) -> None:
    def fits(name: str, line: Line) -> bool:
        seen = books.seen[name]
        if seen.left or cancelled(line):
            return seen.left and cancelled(line) and not failed(line)
        if seen.error is None:
            return seen.status == line["status"] == 200 and not failed(line)
        # An engine's own error has its own words, and so has a stream that had begun with a 200.
        own = line.get("error") in ("UPSTREAM_ERROR", "INVALID_REQUEST") or (seen.status == 200 and line["stream"])
        return failed(line) and (own or (seen.error.upper() == line["error"] and seen.status in (line["status"], None)))

    books.check(fits)


def test_the_clients_were_told_the_tokens_that_are_in_the_log(books: Books) -> None:
    def fits(name: str, line: Line) -> bool:
        counted = books.seen[name].counted
        if counted is None or line["status"] != 200:
            return True
        return counted == (line["tokens_in"] or 0, line["tokens_out"] or 0, line.get("tokens_cached", 0))

    books.check(fits)
    assert books.total("tokens_cached") > 0


def test_the_engines_got_the_attempts_that_are_in_the_log(books: Books) -> None:
    def fits(name: str, line: Line) -> bool:
        gone = line["retries"] if line["model"] == LOST else 0  # nobody is there to count
        return line["attempts"] == len(books.attempts.get(name, [])) + gone and line["retries"] == max(line["attempts"] - 1, 0)

    books.check(fits)


def test_the_engines_made_the_tokens_that_are_in_the_log(books: Books) -> None:
    def fits(name: str, line: Line) -> bool:
        attempts = books.attempts.get(name, [])
        made = sum(attempt["tokens_sent"] for attempt in attempts)
        told = (line["tokens_out"] or 0) if line["status"] == 200 else 0
        told += line.get("tokens_wasted", 0)
        if line["stream"] and kind_of(name).exact:
            return bool(told == made)
        if line["status"] == 200 and line["stream"] is False:
            return bool(line["tokens_out"] is None or line["tokens_out"] == attempts[-1]["tokens_sent"])
        return bool(told <= made + len(attempts))

    books.check(fits)
    assert books.total("tokens_wasted") > 0


def test_the_engines_know_of_every_client_that_left(books: Books) -> None:
    books.check(lambda name, line: not cancelled(line) or books.attempts[name][-1]["aborted"])


def test_every_call_has_its_span_which_says_what_the_log_says(books: Books) -> None:
    assert books.traces.keys() == books.lines.keys()
    books.check(lambda name, line: spoken(books.traces[name].root) == expected(line))


def test_every_attempt_has_its_span_which_the_engine_knows(books: Books) -> None:
    def fits(name: str, line: Line) -> bool:
        spans = {span.span_id: span for span in books.traces[name].attempts}
        parents = [attempt["headers"]["traceparent"].split("-") for attempt in books.attempts.get(name, [])]
        known = {span_id for _, trace_id, span_id, _ in parents if trace_id == line["trace_id"]}
        unknown = [span for span_id, span in spans.items() if span_id not in known]
        return (
            len(spans) == line["attempts"]
            and len(known) == len(parents)
            and known <= spans.keys()
            and all(span.attributes["lexora.backend"] == "gone" for span in unknown)
        )

    books.check(fits)


# -- all calls: the sum of the lines is what statistics and metrics say


@pytest.mark.parametrize("by", KEYS)
def test_the_statistics_are_the_sum_of_the_log(books: Books, by: str) -> None:
    assert books.stats[f"by_{by}"] == sums(books.lines.values(), KEYS[by])


def test_the_totals_are_the_sum_of_the_log(books: Books) -> None:
    (told,) = sums(books.lines.values(), lambda _: "all").values()
    stats = books.stats
    assert [stats[f"{how}_requests"] for how in ("total", "successful", "failed", "cancelled")] == [
        told[how] for how in ("total", "successful", "failed", "cancelled")
    ]
    assert [stats[f"total_tokens_{kind}"] for kind in ("input", "output", "cached")] == [
        told[f"tokens_{kind}"] for kind in ("input", "output", "cached")
    ]
    assert stats["success_rate"] == pytest.approx(told["successful"] / (told["successful"] + told["failed"]))
    assert stats["errors_by_type"] == books.count(lambda line: line.get("error"))
    assert stats["rejected_by_reason"] == books.count(lambda line: line.get("rejected"))
    assert stats["total_retries"] == books.total("retries")
    assert stats["total_fallbacks"] == sum(len(hops(line)) for line in books.lines.values())
    assert stats["total_resumed"] == len([line for line in books.lines.values() if "resumed" in line])
    assert sum(stats["tokens_wasted"].values()) == books.total("tokens_wasted")
    assert stats["active_requests"] == 0
    since = stats["since_start"]
    assert since["total"]["count"] == CALLS
    assert since["queue"]["count"] == len([line for line in books.lines.values() if line["queue_ms"] is not None])
    assert since["ttft"]["count"] == len(
        [line for line in books.lines.values() if line["stream"] and line["ttft_ms"] is not None]
    )


def test_the_metrics_are_the_sum_of_the_log(books: Books) -> None:
    metrics, by_model = books.metrics, sums(books.lines.values(), label)
    assert metrics["lexora_requests_total"] == books.count(lambda line: (line["path"], label(line), str(line["status"])))
    assert metrics["lexora_request_duration_seconds_count"] == books.count(lambda line: (line["path"],))
    assert metrics["lexora_cancelled_requests_total"] == books.count(lambda line: cancelled(line) and (line["path"],))
    for kind in ("input", "output", "cached"):
        told = Counter({(name,): counts[f"tokens_{kind}"] for name, counts in by_model.items()})
        assert metrics[f"lexora_tokens_{kind}_total"] == told
    assert metrics["lexora_retries_total"].total() == books.total("retries")
    assert metrics["lexora_fallbacks_total"] == Counter(hop for line in books.lines.values() for hop in hops(line))
    assert metrics["lexora_streams_resumed_total"].total() == books.stats["total_resumed"]
    assert metrics["lexora_rejections_total"] == books.count(lambda line: (line["rejected"],) if "rejected" in line else None)
    assert metrics["lexora_rate_limit_rejections_total"].total() == books.stats["rejected_by_reason"]["rate_limit"]
    assert metrics["lexora_tokens_wasted_total"] == Counter(
        {(why,): tokens for why, tokens in books.stats["tokens_wasted"].items()}
    )
    assert metrics["lexora_time_to_first_token_seconds_count"] == books.count(
        lambda line: line["stream"] and line["ttft_ms"] is not None and (line["backend"], label(line))
    )
    assert metrics["lexora_log_lines_dropped_total"].total() == 0


def test_the_attempts_of_each_backend_are_those_that_its_engines_got(books: Books) -> None:
    ended: Counter[str] = Counter()
    for (backend, _), count in books.metrics["lexora_attempts_total"].items():
        ended[backend] += count
    assert ended.total() == books.total("attempts")
    got = [post for posts in books.attempts.values() for post in posts]
    assert ended.total() - ended["gone"] == len(got) == books.counted
    assert ended["narrow"] == len([post for post in got if post["model"] == NARROW])
    good = sum(count for (_, outcome), count in books.metrics["lexora_attempts_total"].items() if outcome == "good")
    assert good == books.stats["successful_requests"]


def test_the_spans_of_attempts_are_counted_as_the_attempts_are(books: Books) -> None:
    spans = [span.attributes for trace in books.traces.values() for span in trace.attempts]
    told = Counter((span["lexora.backend"], span["lexora.outcome"]) for span in spans)
    assert told == +books.metrics["lexora_attempts_total"]


def test_the_metrics_that_are_exported_come_to_the_same(books: Books, collector: Receiver) -> None:
    def sum_of(kind: str) -> int:
        points = collector.points("gen_ai.client.token.usage")
        return int(sum(point.sum for attributes, point in points if attributes["gen_ai.token.type"] == kind))

    for kind in ("input", "output"):
        until(lambda kind=kind: sum_of(kind), lambda tokens, kind=kind: tokens == books.stats[f"total_tokens_{kind}"])
    lines = [line for line in books.lines.values() if line["path"] != "other"]
    # Calls without tokens may come with a later export.
    until(lambda: sum(point.count for _, point in collector.points("gen_ai.server.request.duration")), len(lines).__eq__)


def test_the_recent_calls_are_the_last_of_the_log(books: Books) -> None:
    last = list(books.lines)[-RECENT:]
    assert [call["request_id"] for call in reversed(books.recent)] == last
    same = {"tokens_input": "tokens_in", "tokens_output": "tokens_out"}
    for call in books.recent:
        line = books.lines[call["request_id"]]
        for field in ("path", "model", "backend", "endpoint", "status", "stream", "attempts"):
            assert call[field] == line[field]
        for field in ("fallback", "resumed", "error"):
            assert call[field] == line.get(field, "")
        for field, name in same.items():
            assert call[field] == line[name]
        for field in ("queue", "ttft", "total"):
            told = call[f"{field}_seconds"]
            assert (None if told is None else pytest.approx(told * 1000, abs=0.006)) == line[f"{field}_ms"]


def test_all_of_it_has_happened(books: Books) -> None:
    """The comparisons are about something."""
    assert set(books.stats["errors_by_type"]) >= {
        "DEADLINE_EXCEEDED", "INVALID_REQUEST", "MODEL_NOT_FOUND", "QUEUE_FULL", "RATE_LIMITED", "UPSTREAM_BROKEN",
        "UPSTREAM_ERROR", "UPSTREAM_INVALID", "UPSTREAM_TIMEOUT", "UPSTREAM_UNREACHABLE",
    }  # fmt: skip
    assert set(books.stats["rejected_by_reason"]) == {"rate_limit", "queue_full"}
    assert set(books.stats["tokens_wasted"]) == {"client_left", "failed", "failed_attempt"}
    assert books.stats["total_resumed"] > 5
    assert books.stats["cancelled_requests"] == sum(KINDS[name].count for name in KINDS if "left" in name)
