"""Messages of the contract as plain data, ready for JSON: what HTTP and the command line print."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from lexora.v1.errors_pb2 import ErrorReason
from lexora.v1.receipt_pb2 import Hop as HopMessage
from lexora.v1.receipt_pb2 import ResumeMethod
from lexora.v1.stats_pb2 import GetStatsResponse
from lexora_contract.answer import Hop, hops_text
from lexora_contract.enums import word
from lexora_contract.times import seconds, unix


def plain(message: Message) -> dict[str, Any]:
    """Every field by its proto name, set or not: numbers as numbers, maps as objects with sorted keys.

    Optional ones and messages that are absent are None. Enums are words: BREAKER_STATE_HALF_OPEN is `half_open`, an unset
    one `unknown`. Durations are seconds. Some fields have a name and a form of their own there, see _FORMS.
    """
    return dict(_field(message, field) for field in message.DESCRIPTOR.fields)


def stats_plain(stats: GetStatsResponse) -> dict[str, Any]:
    """The statistics as `/stats` has them: counters and gauges by name, each map beside its likes."""
    found, calls = plain(stats), plain(stats.calls)
    loads = sorted(stats.endpoints.items())
    return {
        **{f"{name}_requests": calls[name] for name in ("total", "successful", "failed", "cancelled")},
        "success_rate": stats.success_rate,
        **{f"total_{name}": calls[name] for name in ("tokens_input", "tokens_output", "tokens_cached")},
        "average_duration_seconds": seconds(stats.mean_time),
        "requests_per_endpoint": _totals(found["by_path"]),
        "requests_per_model": _totals(found["by_model"]),
        "requests_per_backend": _totals(found["by_backend"]),
        "errors_by_type": {reason_name(each.reason): each.calls for each in stats.errors},
        "rejected_by_reason": _counted(stats.rejections),
        "tokens_wasted": _counted(stats.wasted_tokens),
        "total_retries": stats.retries,
        "total_fallbacks": stats.fallbacks,
        "total_resumed": stats.resumed_streams,
        "active_requests": stats.active_calls,
        "in_flight": {address: load.in_flight for address, load in loads},
        "limits": {address: load.limit for address, load in loads if load.HasField("limit")},
        "breakers": {address: plain(load)["breaker"] for address, load in loads},
        "queue_depth": found["waiting"],
        "discovery": found["discovery"],
        "uptime_seconds": seconds(stats.uptime),
        "state": found["state"],
        **({"workers": found["workers"]} if stats.workers else {}),
        **{name: found[name] for name in found if name.startswith(("by_", "last_", "since_", "history"))},
    }


def reason_name(reason: int) -> str:
    """UPPER_SNAKE, as ErrorInfo has it; empty for none."""
    return word(ErrorReason, reason).upper() if reason else ""


def hops_of(hops: Iterable[HopMessage]) -> tuple[Hop, ...]:
    """The hops of a receipt."""
    return tuple(Hop(hop.from_backend, hop.to_backend, reason_name(hop.reason)) for hop in hops)


def resumed_name(method: int) -> str:
    """`token_ids` or `text`; empty for a stream that was not resumed."""
    return word(ResumeMethod, method) if method else ""


def _field(message: Message, field: Any) -> tuple[str, Any]:
    name, form = _FORMS.get(field.full_name, (field.name, None))
    value, kind = getattr(message, field.name), field.message_type
    if kind is not None and kind.GetOptions().map_entry:
        return name, _map(value, nested=kind.fields_by_name["value"].message_type is not None)
    if field.has_presence and not message.HasField(field.name):
        return name, None
    if form is not None:
        return name, form(value)
    if field.is_repeated:
        return name, [_single(each, field) for each in value]
    return name, _single(value, field)


def _single(value: Any, field: Any) -> Any:
    if isinstance(value, Duration):
        return seconds(value)
    if isinstance(value, Message):
        return plain(value)
    return word(field.enum_type, value) if field.enum_type is not None else value


def _map(values: Mapping[str, Any], *, nested: bool) -> dict[str, Any]:
    return {key: plain(each) if nested else each for key, each in sorted(values.items())}


def _totals(counts: dict[str, Any]) -> dict[str, int]:
    return {name: each["total"] for name, each in counts.items()}


def _counted(counts: Message) -> dict[str, int]:
    """Those that were counted at all."""
    return {field.name: value for field, value in counts.ListFields()}


def _whole(instant: Timestamp) -> int:
    return instant.seconds


def _milliseconds(instant: Timestamp) -> int:
    return round(unix(instant) * 1000)


# Fields that HTTP has in a form of its own, which is older than the contract's: their names there, and how they are read.
_FORMS: dict[str, tuple[str, Callable[[Any], Any] | None]] = {
    "lexora.v1.RecentCall.finish_time": ("finished_unix_ms", _milliseconds),
    "lexora.v1.RecentCall.error": ("error", reason_name),
    "lexora.v1.RecentCall.queue_time": ("queue_seconds", seconds),
    "lexora.v1.RecentCall.time_to_first_token": ("ttft_seconds", seconds),
    "lexora.v1.RecentCall.total_time": ("total_seconds", seconds),
    "lexora.v1.RecentCall.hops": ("fallback", lambda hops: hops_text(hops_of(hops))),
    "lexora.v1.RecentCall.resume_method": ("resumed", resumed_name),
    "lexora.v1.ReloadReport.finish_time": ("finished_unix", _whole),
    "lexora.v1.Discovery.since_success": ("seconds_since_success", seconds),
    "lexora.v1.HealthResponse.uptime": ("uptime_seconds", seconds),
    "lexora.v1.Interval.start_time": ("start_unix", _whole),
    "lexora.v1.Interval.length": ("seconds", seconds),
    "lexora.v1.ExplainResponse.error": ("error", reason_name),
    "lexora.v1.TargetExplanation.wait_time": ("wait_seconds", seconds),
}
