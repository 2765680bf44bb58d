"""The details of a google.rpc.Status that the facade understands."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from google.protobuf.message import DecodeError
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, QuotaFailure, RetryInfo

from lexora.v1 import receipt_pb2
from lexora.v1.errors_pb2 import UpstreamError
from lexora_contract.messages import receipt_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from google.rpc.status_pb2 import Status

    from lexora_contract.answer import Receipt


@dataclass(slots=True)
class Details:
    """What the details say.

    `reason` and `trace_id` of ErrorInfo, `param` of BadRequest, `retry_after` of RetryInfo in seconds, `quota` in words of
    QuotaFailure, and the project's own two.
    """

    reason: str = ""
    trace_id: str = ""
    param: str | None = None
    retry_after: float | None = None
    quota: str = ""
    upstream: UpstreamError | None = None
    receipt: Receipt | None = None


def details_of(status: Status) -> Details:
    """Read the known details; unknown and unreadable ones are left out."""
    details = Details()
    for detail in status.details:
        take = _TAKE.get(detail.type_url.rpartition("/")[2])
        if take is not None:
            try:
                take(details, detail.value)
            except DecodeError:
                continue
    return details


def _error_info(details: Details, value: bytes) -> None:
    info = ErrorInfo.FromString(value)
    details.reason = info.reason
    details.trace_id = info.metadata.get("trace_id", "")


def _bad_request(details: Details, value: bytes) -> None:
    violations = BadRequest.FromString(value).field_violations
    details.param = (violations[0].field or None) if violations else None


def _retry_info(details: Details, value: bytes) -> None:
    delay = RetryInfo.FromString(value).retry_delay
    details.retry_after = delay.seconds + delay.nanos / 1e9


def _quota_failure(details: Details, value: bytes) -> None:
    violations = QuotaFailure.FromString(value).violations
    details.quota = (violations[0].description or violations[0].subject) if violations else ""


def _upstream_error(details: Details, value: bytes) -> None:
    details.upstream = UpstreamError.FromString(value)


def _receipt(details: Details, value: bytes) -> None:
    details.receipt = receipt_of(receipt_pb2.Receipt.FromString(value))


_TAKE: dict[str, Callable[[Details, Any], None]] = {
    "google.rpc.ErrorInfo": _error_info,
    "google.rpc.BadRequest": _bad_request,
    "google.rpc.RetryInfo": _retry_info,
    "google.rpc.QuotaFailure": _quota_failure,
    "lexora.v1.UpstreamError": _upstream_error,
    "lexora.v1.Receipt": _receipt,
}
