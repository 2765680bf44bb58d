"""What telemetry has counted, as messages of the contract."""

from collections.abc import Iterator, Mapping

from google.protobuf.duration_pb2 import Duration

from lexora.v1 import errors_pb2, receipt_pb2, recent_calls_pb2, reload_pb2, stats_pb2
from lexora_contract.enums import value
from lexora_contract.messages import hop_message
from lexora_contract.times import duration, timestamp
from lexora_router.telemetry.counts import Counts
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
    totals, windows = stats.totals, stats.windows
    return stats_pb2.GetStatsResponse(
        calls=_count(totals.all),
        success_rate=totals.success_rate,
        mean_time=duration(stats.seconds / totals.all.total if totals.all.total else 0.0),
        errors=[stats_pb2.ErrorCount(reason=reason, calls=calls) for reason, calls in _errors(stats)],
        rejections=stats_pb2.Rejections(**stats.rejected),
        retries=stats.retries,
        fallbacks=stats.fallbacks,
        resumed_streams=stats.resumed,
        wasted_tokens=stats_pb2.WastedTokens(**stats.wasted),
        active_calls=stats.active,
        by_model=_counts(totals.by_model),
        by_backend=_counts(totals.by_backend),
        by_endpoint=_counts(totals.by_endpoint),
        by_tenant=_counts(totals.by_tenant),
        by_path=_counts(totals.by_path),
        last_minute=_latencies(windows.last(LAST_MINUTE, now)),
        last_five_minutes=_latencies(windows.last(SLICES, now)),
        since_start=_latencies(windows.since_start()),
        history=[_interval(each, now, wall) for each in windows.history(now)],
    )


def recent_call_message(call: RecentCall, now: float, wall: float) -> recent_calls_pb2.RecentCall:
    """One finished call; `now` and `wall` as above."""
    receipt, usage = call.receipt, call.receipt.usage
    return recent_calls_pb2.RecentCall(
        request_id=call.id,
        finish_time=timestamp(wall - now + receipt.finished_at),
        path=call.path,
        model=call.model,
        backend=receipt.backend,
        endpoint=receipt.endpoint,
        status=call.status,
        error=value(errors_pb2.ErrorReason, call.error),
        stream=call.stream,
        queue_time=_since(call.started, receipt.dispatched_at),
        time_to_first_token=_since(call.started, receipt.first_event_at),
        total_time=duration(receipt.finished_at - call.started),
        tokens_input=usage.input_tokens if usage is not None else None,
        tokens_output=usage.output_tokens if usage is not None else None,
        attempts=receipt.attempts,
        hops=[hop_message(hop) for hop in receipt.hops],
        resume_method=value(receipt_pb2.ResumeMethod, receipt.resumed),
        labels=dict(call.labels),
        session_key=call.session_key,
        tenant=call.tenant,
        key=call.key,
    )


def _since(started: float, instant: float) -> Duration | None:
    return duration(instant - started) if instant else None


def _errors(stats: Stats) -> Iterator[tuple[errors_pb2.ErrorReason.ValueType, int]]:
    return iter(sorted((value(errors_pb2.ErrorReason, reason), calls) for reason, calls in stats.errors.items()))


def _counts(counts: Mapping[str, Counts]) -> dict[str, stats_pb2.CallCounts]:
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
    return stats_pb2.Distribution(
        count=found.count,
        mean=duration(found.mean),
        p50=duration(found.p50),
        p90=duration(found.p90),
        p99=duration(found.p99),
    )


def _interval(piece: Slice, now: float, wall: float) -> stats_pb2.Interval:
    return stats_pb2.Interval(
        start_time=timestamp(round(wall - now + piece.begin)),
        length=duration(min(now - piece.begin, SLICE_SECONDS)),
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
        trigger=value(reload_pb2.ReloadTrigger, reload.trigger),
        finish_time=timestamp(int(reload.at)),
        problems=reload.problems,
        warnings=reload.warnings,
        changed_keys=reload.changed,
        keys_needing_restart=reload.restart,
        good_reloads=reload.good,
        bad_reloads=reload.bad,
    )
