import json

import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc import code_pb2
from google.rpc.error_details_pb2 import ErrorInfo, QuotaFailure, RetryInfo
from google.rpc.status_pb2 import Status
from tests.unit.gateway.support import failure

from lexora.v1.errors_pb2 import UpstreamError
from lexora.v1.raw_pb2 import Header
from lexora.v1.receipt_pb2 import Receipt
from lexora_contract.operations import Dialect
from lexora_contract.reasons import REASONS, Reason
from lexora_contract.status import failed_of
from lexora_gateway.errors import Failure, from_failed, in_dialect


@pytest.mark.parametrize("reason", REASONS.values(), ids=lambda row: row.name)
def test_a_reason_decides_status_type_and_code(reason: Reason) -> None:
    failed = from_failed(failure(2, "text", ErrorInfo(reason=reason.name)), "r")
    assert (failed.status, failed.type, failed.code) == (reason.status, reason.type, reason.openai_code)
    assert (failed.message, failed.param) == ("text", None)


CODES = {
    code_pb2.CANCELLED: 499,
    code_pb2.UNKNOWN: 500,
    code_pb2.INVALID_ARGUMENT: 400,
    code_pb2.DEADLINE_EXCEEDED: 504,
    code_pb2.NOT_FOUND: 404,
    code_pb2.ALREADY_EXISTS: 500,
    code_pb2.PERMISSION_DENIED: 403,
    code_pb2.RESOURCE_EXHAUSTED: 429,
    code_pb2.FAILED_PRECONDITION: 400,
    code_pb2.ABORTED: 500,
    code_pb2.OUT_OF_RANGE: 400,
    code_pb2.UNIMPLEMENTED: 501,
    code_pb2.INTERNAL: 500,
    code_pb2.UNAVAILABLE: 503,
    code_pb2.DATA_LOSS: 500,
    code_pb2.UNAUTHENTICATED: 401,
}


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("details", [(), (ErrorInfo(reason="SOMETHING_NEW"),)])
def test_without_a_known_reason_the_code_decides(code: int, details: tuple[ErrorInfo, ...]) -> None:
    assert from_failed(failure(code, "text", *details), "r").status == CODES[code]


@pytest.mark.parametrize("code", [code_pb2.UNKNOWN, code_pb2.INTERNAL])
def test_the_text_of_an_unforeseen_status_stays_inside(code: int) -> None:
    failed = from_failed(failure(code, "Unexpected <class 'KeyError'>: 'password'"), "r-1")
    assert "password" not in failed.message
    assert "r-1" in failed.message


def test_the_trace_is_a_fifth_field_when_there_is_one() -> None:
    info = ErrorInfo(reason="QUEUE_FULL", metadata={"trace_id": "abc"})
    assert from_failed(failure(8, "full", info), "r").error()["trace_id"] == "abc"
    without = from_failed(failure(8, "full", ErrorInfo(reason="QUEUE_FULL")), "r")
    assert list(without.error()) == ["message", "type", "param", "code"]


def test_a_bug_in_a_trace_names_it() -> None:
    info = ErrorInfo(reason="INTERNAL", metadata={"trace_id": "abc"})
    assert from_failed(failure(13, "", info), "r").error()["trace_id"] == "abc"


def test_an_empty_message_gets_words() -> None:
    assert from_failed(failure(14, ""), "r").message == "No healthy endpoint."


@pytest.mark.parametrize(("seconds", "nanos", "shown"), [(0, 1, b"1"), (0, 0, b"1"), (2, 0, b"2"), (2, 1, b"3")])
def test_retry_info_becomes_whole_seconds(seconds: int, nanos: int, shown: bytes) -> None:
    hint = RetryInfo()
    hint.retry_delay.seconds = seconds
    hint.retry_delay.nanos = nanos
    failed = from_failed(failure(8, "x", ErrorInfo(reason="QUEUE_FULL"), QuotaFailure(), hint), "r")
    assert failed.headers == [(b"retry-after", shown)]


def test_an_upstream_answer_keeps_status_type_body_and_headers() -> None:
    hint = RetryInfo()
    hint.retry_delay.seconds = 9
    upstream = UpstreamError(
        status=422, content_type="text/plain", body=b"\xff no", headers=[Header(name="retry-after", value="3")]
    )
    failed = from_failed(failure(3, "x", hint, upstream, Receipt(backend="b", attempts=1)), "r")
    assert (failed.status, failed.content_type, failed.body()) == (422, b"text/plain", b"\xff no")
    assert failed.headers == [(b"retry-after", b"3"), (b"x-lexora-backend", b"b"), (b"x-lexora-attempts", b"1")]


def test_an_upstream_event_before_the_head_counts_by_its_reason() -> None:
    event = UpstreamError(status=0, body=b'{"error":{}}')
    failed = from_failed(failure(14, "died", ErrorInfo(reason="UPSTREAM_BROKEN"), event), "r")
    assert (failed.status, failed.event, failed.raw) == (502, b'{"error":{}}', None)


def test_half_an_upstream_event_is_not_shown() -> None:
    event = UpstreamError(status=0, body=b'{"err', truncated=True)
    assert from_failed(failure(14, "died", event), "r").event is None


def test_unknown_and_unreadable_details_do_no_harm() -> None:
    status = Status(code=5, message="gone")
    status.details.append(AnyMessage(type_url="type.googleapis.com/some.Other", value=b"x"))
    status.details.append(AnyMessage(type_url="type.googleapis.com/google.rpc.ErrorInfo", value=b"\xff\xff"))
    assert from_failed(failed_of(status), "r").status == 404


@pytest.mark.parametrize(
    ("status", "code", "shown", "kind"),
    [
        (400, None, 400, "invalid_request_error"),
        (401, "unauthenticated", 401, "authentication_error"),
        (403, "permission_denied", 403, "permission_error"),
        (404, "model_not_found", 404, "not_found_error"),
        (408, "request_timeout", 408, "invalid_request_error"),
        (413, "request_too_large", 413, "request_too_large"),
        (429, "rate_limited", 429, "rate_limit_error"),
        (429, "queue_full", 529, "overloaded_error"),
        (503, "no_healthy_endpoint", 529, "overloaded_error"),
        (503, "draining", 529, "overloaded_error"),
        (503, "classifier_disabled", 503, "api_error"),
        (500, None, 500, "api_error"),
        (502, "upstream_broken", 502, "api_error"),
        (504, "upstream_timeout", 504, "timeout_error"),
    ],
)
def test_anthropic_s_status_and_type(status: int, code: str | None, shown: int, kind: str) -> None:
    failure = in_dialect(Dialect.ANTHROPIC, Failure(status, "no", "x", code=code), "id")
    assert failure.status == shown
    assert json.loads(failure.body()) == {"type": "error", "error": {"type": kind, "message": "no"}, "request_id": "id"}


def test_other_dialects_keep_openai_s() -> None:
    failure = Failure(503, "no", "x", code="draining")
    assert in_dialect(Dialect.RESPONSES, failure, "id") is failure
