"""A failed call as google.rpc.Status, and back: ErrorInfo always, further details where they help.

https://google.aip.dev/193 and google/rpc/error_details.proto.
"""

from collections.abc import Callable
from dataclasses import dataclass

from google.protobuf import any_pb2
from google.protobuf.message import DecodeError, Message
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, QuotaFailure, RetryInfo
from google.rpc.status_pb2 import Status

from lexora.v1 import errors_pb2, raw_pb2, receipt_pb2
from lexora_contract.answer import EngineError, Headers, Receipt
from lexora_contract.messages import receipt_message, receipt_of
from lexora_contract.port import CallFailed
from lexora_contract.reasons import REASON_OF_CODE, REASONS
from lexora_contract.times import duration, seconds

DOMAIN = "lexora.spirrow"
MAX_HEADER_BYTES = 512


def status_of(failed: CallFailed, *, max_body: int) -> Status:
    """The status of a failed call, with at most `max_body` bytes of the engine's own error."""
    receipt = failed.receipt or Receipt()
    named = {"request_id": receipt.request_id, "backend": receipt.backend}
    if failed.trace_id:
        named["trace_id"] = failed.trace_id
    details: list[Message] = [ErrorInfo(reason=failed.reason, domain=DOMAIN, metadata=named)]
    if failed.param:
        violation = BadRequest.FieldViolation(field=failed.param, description=failed.message)
        details.append(BadRequest(field_violations=[violation]))
    if failed.retry_after is not None:
        hint = RetryInfo()
        hint.retry_delay.CopyFrom(duration(failed.retry_after))
        details.append(hint)
    if failed.quota:
        quota = QuotaFailure.Violation(subject=failed.quota, description=failed.message)
        details.append(QuotaFailure(violations=[quota]))
    if failed.engine is not None:
        details.append(_engine_message(failed.engine, max_body))
    details.append(receipt_message(receipt))
    return Status(code=failed.code, message=failed.message, details=[_packed(detail) for detail in details])


def failed_of(status: Status) -> CallFailed:
    """The failed call behind a status; details that are unknown or cannot be read are left out."""
    details = _details(status)
    reason = details.reason if details.reason in REASONS else REASON_OF_CODE.get(status.code, "INTERNAL")
    message = status.message or details.quota
    if details.reason not in REASONS and status.code not in REASON_OF_CODE:
        message = ""  # it may be an exception's text
    return CallFailed(
        reason,
        message,
        code=status.code,
        param=details.param,
        retry_after=details.retry_after,
        quota=details.subject,
        engine=details.engine,
        receipt=details.receipt,
        trace_id=details.trace_id,
    )


@dataclass(slots=True)
class _Details:
    reason: str = ""
    trace_id: str = ""
    param: str | None = None
    retry_after: float | None = None
    quota: str = ""
    subject: str = ""
    engine: EngineError | None = None
    receipt: Receipt | None = None


def _details(status: Status) -> _Details:
    details = _Details()
    for detail in status.details:
        take = _TAKE.get(detail.type_url.rpartition("/")[2])
        if take is not None:
            try:
                take(details, detail.value)
            except DecodeError:
                continue
    return details


def _error_info(details: _Details, value: bytes) -> None:
    info = ErrorInfo.FromString(value)
    details.reason = info.reason
    details.trace_id = info.metadata.get("trace_id", "")


def _bad_request(details: _Details, value: bytes) -> None:
    violations = BadRequest.FromString(value).field_violations
    details.param = (violations[0].field or None) if violations else None


def _retry_info(details: _Details, value: bytes) -> None:
    details.retry_after = seconds(RetryInfo.FromString(value).retry_delay)


def _quota_failure(details: _Details, value: bytes) -> None:
    violations = QuotaFailure.FromString(value).violations
    if violations:
        details.subject = violations[0].subject
        details.quota = violations[0].description or violations[0].subject


def _upstream_error(details: _Details, value: bytes) -> None:
    error = errors_pb2.UpstreamError.FromString(value)
    headers = tuple((each.name, each.value) for each in error.headers)
    details.engine = EngineError(error.status, error.content_type, error.body, headers, truncated=error.truncated)


def _receipt(details: _Details, value: bytes) -> None:
    details.receipt = receipt_of(receipt_pb2.Receipt.FromString(value))


_TAKE: dict[str, Callable[[_Details, bytes], None]] = {
    "google.rpc.ErrorInfo": _error_info,
    "google.rpc.BadRequest": _bad_request,
    "google.rpc.RetryInfo": _retry_info,
    "google.rpc.QuotaFailure": _quota_failure,
    "lexora.v1.UpstreamError": _upstream_error,
    "lexora.v1.Receipt": _receipt,
}


def _engine_message(error: EngineError, max_body: int) -> errors_pb2.UpstreamError:
    return errors_pb2.UpstreamError(
        status=error.status,
        content_type=error.content_type,
        body=error.body[:max_body],
        truncated=error.truncated or len(error.body) > max_body,
        headers=_headers(error.headers, max(MAX_HEADER_BYTES, max_body // 4)),
    )


def _headers(headers: Headers, limit: int) -> list[raw_pb2.Header]:
    """The headers that fit, in their order; those that say when to come back are the last to go."""
    kept = list(headers)
    size = sum(len(name) + len(value) for name, value in kept)
    for name, value in sorted(kept, key=_is_hint):
        if size <= limit:
            break
        kept.remove((name, value))
        size -= len(name) + len(value)
    return [raw_pb2.Header(name=name, value=value) for name, value in kept]


def _is_hint(header: tuple[str, str]) -> bool:
    return header[0] == "retry-after" or "ratelimit" in header[0]


def _packed(message: Message) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(message)
    return packed
