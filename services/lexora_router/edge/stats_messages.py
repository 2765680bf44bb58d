"""What telemetry has counted, as messages of the contract."""

from lexora.v1 import recent_pb2, reload_pb2, stats_pb2
from lexora_router.telemetry.counts import Counts, CountsByName
from lexora_router.telemetry.quantile_sketch import QuantileSketch
from lexora_router.telemetry.recent import RecentCall
from lexora_router.telemetry.reloads import Reload, Result
from lexora_router.telemetry.stats import Stats
from lexora_router.telemetry.windows import LAST_MINUTE, SLICE_SECONDS, SLICES, Latencies, Slice

_RESULTS = {
    Result.APPLIED: reload_pb2.RELOAD_RESULT_APPLIED,
    Result.UNCHANGED: reload_pb2.RELOAD_RESULT_UNCHANGED,
    Result.REFUSED: reload_pb2.RELOAD_RESULT_REFUSED,
}


def stats_message(stats: Stats, now: float, wall: float) -> stats_pb2.GetStatsResponse:
    """Counters and distributions; the gauges are left to others. `now` is monotonic, `wall` the same in seconds since 1970."""
    everything, windows = stats.all, stats.windows
    return stats_pb2.GetStatsResponse(
        total_requests=everything.total,
        successful_requests=everything.successful,
        failed_requests=everything.failed,
        cancelled_requests=everything.cancelled,
        success_rate=stats.success_rate,
        total_tokens_input=everything.tokens_input,
        total_tokens_output=everything.tokens_output,
        total_tokens_cached=everything.tokens_cached,
        average_duration_seconds=stats.seconds / everything.total if everything.total else 0.0,
        requests_per_endpoint=_totals(stats.by_path),
        requests_per_model=_totals(stats.by_model),
        requests_per_backend=_totals(stats.by_backend),
        errors_by_type=stats.errors,
        active_requests=stats.active,
        total_retries=stats.retries,
        total_fallbacks=stats.fallbacks,
        total_resumed=stats.resumed,
        rejected_by_reason=stats.rejected,
        tokens_wasted=stats.wasted,
        by_model=_counts(stats.by_model),
        by_backend=_counts(stats.by_backend),
        by_endpoint=_counts(stats.by_endpoint),
        by_tenant=_counts(stats.by_tenant),
        by_path=_counts(stats.by_path),
        last_minute=_latencies(windows.last(LAST_MINUTE, now)),
        last_five_minutes=_latencies(windows.last(SLICES, now)),
        since_start=_latencies(windows.since_start()),
        history=[_interval(each, now, wall) for each in windows.history(now)],
    )


def recent_call_message(call: RecentCall, now: float, wall: float) -> recent_pb2.RecentCall:
    """One finished call; `now` and `wall` as above."""
    receipt, usage = call.receipt, call.receipt.usage
    return recent_pb2.RecentCall(
        request_id=call.id,
        finished_unix_ms=round((wall - now + receipt.finished_at) * 1000),
        path=call.path,
        model=call.model,
        backend=receipt.backend,
        endpoint=receipt.endpoint,
        status=call.status,
        error=call.error,
        stream=call.stream,
        queue_seconds=_since(call.started, receipt.dispatched_at),
        ttft_seconds=_since(call.started, receipt.first_event_at),
        total_seconds=receipt.finished_at - call.started,
        tokens_input=usage.input_tokens if usage is not None else None,
        tokens_output=usage.output_tokens if usage is not None else None,
        attempts=receipt.attempts,
        fallback=receipt.fallback,
        resumed=receipt.resumed,
    )


def _since(started: float, instant: float) -> float | None:
    return instant - started if instant else None


def _totals(counts: CountsByName) -> dict[str, int]:
    return {name: each.total for name, each in counts.items()}


def _counts(counts: CountsByName) -> dict[str, stats_pb2.CallCounts]:
    return {name: _count(each) for name, each in counts.items()}


def _count(counts: Counts) -> stats_pb2.CallCounts:
    return stats_pb2.CallCounts(
        total=counts.total,
        successful=counts.successful,
        failed=counts.failed,
        cancelled=counts.cancelled,
        tokens_input=counts.tokens_input,
        tokens_output=counts.tokens_output,
        tokens_cached=counts.tokens_cached,
    )


def _latencies(latencies: Latencies) -> stats_pb2.Latencies:
    return stats_pb2.Latencies(
        ttft=_distribution(latencies.ttft),
        itl=_distribution(latencies.itl),
        queue=_distribution(latencies.queue),
        total=_distribution(latencies.total),
    )


def _distribution(sketch: QuantileSketch) -> stats_pb2.Distribution:
    found = sketch.distribution()
    return stats_pb2.Distribution(count=found.count, mean=found.mean, p50=found.p50, p90=found.p90, p99=found.p99)


def _interval(piece: Slice, now: float, wall: float) -> stats_pb2.Interval:
    return stats_pb2.Interval(
        start_unix=round(wall - now + piece.begin),
        seconds=min(now - piece.begin, SLICE_SECONDS),
        total=piece.total,
        failed=piece.failed,
        tokens_input=piece.tokens_input,
        tokens_output=piece.tokens_output,
        latencies=_latencies(piece.latencies),
    )


def reload_message(reload: Reload | None) -> reload_pb2.ReloadReport | None:
    """What came of a reload; None for none."""
    if reload is None:
        return None
    return reload_pb2.ReloadReport(
        result=_RESULTS[reload.result],
        trigger=reload.trigger,
        finished_unix=int(reload.at),
        problems=reload.problems,
        warnings=reload.warnings,
        changed_keys=reload.changed,
        keys_needing_restart=reload.restart,
        good_reloads=reload.good,
        bad_reloads=reload.bad,
    )
