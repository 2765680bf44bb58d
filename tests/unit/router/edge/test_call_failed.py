from collections.abc import Iterator
from inspect import signature
from typing import TypeVar

import pytest
from google.protobuf.message import Message
from google.rpc import code_pb2, status_pb2
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, QuotaFailure, RetryInfo

from lexora.v1.errors_pb2 import UpstreamError
from lexora.v1.raw_pb2 import Header
from lexora.v1.receipt_pb2 import Receipt
from lexora_contract.answer import BucketState, RateLimitState
from lexora_contract.answer import Receipt as Known
from lexora_contract.messages import receipt_message
from lexora_contract.reasons import REASONS
from lexora_contract.status import failed_of, status_of
from lexora_router.edge.call_failed import bug_in, failed, retry_delay
from lexora_router.errors import (
    AccessUnavailable,
    Draining,
    InvalidRequest,
    NoHealthyEndpoint,
    OutOfResources,
    QueueFull,
    RateLimited,
    RequestQuarantined,
    RouterError,
    TooLarge,
    TooManyAttempts,
    UpstreamBroken,
    UpstreamFailure,
    UpstreamInvalid,
    UpstreamRefused,
)

RECEIPT = Known(request_id="id-1", backend="main", attempts=1)
M = TypeVar("M", bound=Message)


def status(error: RouterError, max_body: int, trace_id: str = "") -> status_pb2.Status:
    return status_of(failed(error, RECEIPT, trace_id), max_body=max_body)


def refusal(status: int = 400, body: bytes = b'{"error":{"message":"no"}}', retry_after: str | None = None) -> UpstreamRefused:
    return UpstreamRefused(status, "application/json", body, () if retry_after is None else (("retry-after", retry_after),))


ARGUMENTS: dict[object, object] = {str: "words", float: 2.5, int: 400, bytes: b"{}"}


def errors(root: type[RouterError] = RouterError) -> Iterator[RouterError]:
    """One of every kind that can be raised, with whatever it takes."""
    if root.__module__.startswith("lexora_router") and root is not UpstreamFailure:
        needed = [each for each in signature(root).parameters.values() if each.default is each.empty]
        yield root(*(ARGUMENTS[each.annotation] for each in needed))
    for kind in root.__subclasses__():
        yield from errors(kind)


ERRORS = list(errors())
each_error = pytest.mark.parametrize("error", ERRORS, ids=lambda error: error.reason)


@each_error
def test_every_error_has_its_code_its_reason_and_the_receipt(error: RouterError) -> None:
    found = status(error, max_body=1000)
    assert found.code == (REASONS[error.reason].code if error.reason != "UPSTREAM_ERROR" else code_pb2.INVALID_ARGUMENT)
    assert found.message.startswith(error.message)
    info = detail(found, ErrorInfo)
    assert info is not None
    assert (info.reason, info.domain) == (error.reason, "lexora.spirrow")
    assert dict(info.metadata) == {"request_id": "id-1", "backend": "main"}
    assert detail(found, Receipt) == receipt_message(RECEIPT)


@pytest.mark.parametrize(
    ("http", "code"),
    [
        (400, code_pb2.INVALID_ARGUMENT),
        (401, code_pb2.UNAUTHENTICATED),
        (403, code_pb2.PERMISSION_DENIED),
        (404, code_pb2.NOT_FOUND),
        (413, code_pb2.RESOURCE_EXHAUSTED),
        (418, code_pb2.FAILED_PRECONDITION),
        (422, code_pb2.INVALID_ARGUMENT),
        (429, code_pb2.RESOURCE_EXHAUSTED),
        (500, code_pb2.UNAVAILABLE),
        (503, code_pb2.UNAVAILABLE),
        (504, code_pb2.DEADLINE_EXCEEDED),
    ],
)
def test_an_engine_s_status_has_a_code(http: int, code: int) -> None:
    assert failed(refusal(http), RECEIPT).code == code


@each_error
def test_over_a_wire_a_failed_call_is_the_same_as_in_process(error: RouterError) -> None:
    made = failed(error, RECEIPT, "trace")
    assert vars(failed_of(status_of(made, max_body=1000))) == vars(made)


@each_error
def test_only_what_may_pass_by_itself_has_a_retry_hint(error: RouterError) -> None:
    hint = detail(status(error, max_body=1000), RetryInfo)
    hinted = NoHealthyEndpoint | OutOfResources | RequestQuarantined | Draining | RateLimited | QueueFull
    hinted |= AccessUnavailable | TooManyAttempts
    assert (hint is not None) == isinstance(error, hinted)
    assert hint is None or hint.retry_delay.seconds > 0


@pytest.mark.parametrize(
    ("error", "seconds"),
    [
        (RateLimited("too many", 2.5, "user:alice"), 2.5),
        (RateLimited("too many", 1e-9, "user:alice"), 1e-9),
        (QueueFull("full", 12), 12.0),
        (refusal(429, retry_after="7"), 7.0),
        (refusal(503, retry_after="0.5"), 0.5),
        (refusal(503, retry_after="1e9"), None),
        (refusal(503, retry_after="9999999999"), 86_400.0),
        (refusal(503, retry_after="soon"), None),
        (refusal(503, retry_after="Thu, 01 Jan 1970 00:00:00 GMT"), 0.0),
        (refusal(400), None),
        (UpstreamInvalid("html", 503, "9"), 9.0),
        (UpstreamInvalid("html", 503), None),
    ],
)
def test_the_retry_hint_says_when(error: RouterError, seconds: float | None) -> None:
    hint = detail(status(error, max_body=1000), RetryInfo)
    assert retry_delay(error) == seconds
    found = None if hint is None else hint.retry_delay.seconds + hint.retry_delay.nanos / 1e9
    assert found == seconds


def test_a_tenant_over_its_quota_is_told_which() -> None:
    found = detail(status(RateLimited("too many", 2.5, "user:alice"), max_body=0), QuotaFailure)
    assert found is not None
    [violation] = found.violations
    assert (violation.subject, violation.description) == ("user:alice", "too many")


@pytest.mark.parametrize("error", [QueueFull("full", 12), refusal(429), NoHealthyEndpoint("all down")])
def test_nobody_s_quota_is_to_blame_for_a_busy_engine(error: RouterError) -> None:
    assert detail(status(error, max_body=0), QuotaFailure) is None


def test_a_bad_field_is_named() -> None:
    found = detail(status(InvalidRequest("must be a list", "messages"), max_body=0), BadRequest)
    assert found is not None
    [violation] = found.field_violations
    assert (violation.field, violation.description) == ("messages", "must be a list")
    assert detail(status(InvalidRequest("malformed"), max_body=0), BadRequest) is None


def test_an_engine_s_answer_is_carried_whole() -> None:
    found = status(refusal(429, retry_after="7"), max_body=1000)
    assert detail(found, UpstreamError) == UpstreamError(
        status=429,
        content_type="application/json",
        body=b'{"error":{"message":"no"}}',
        headers=[Header(name="retry-after", value="7")],
    )
    assert found.message == "the engine answered 429: no"


def test_an_engine_s_answer_that_is_too_large_is_cut_and_says_so() -> None:
    found = status(refusal(body=b"\xff" + b"x" * 5000), max_body=100)
    error = detail(found, UpstreamError)
    assert error is not None
    assert (len(error.body), error.truncated) == (100, True)
    assert len(found.message) < 400


def test_an_engine_s_error_event_is_carried() -> None:
    event = b'{"error":{"message":"died"}}'
    found = detail(status(UpstreamBroken("died", event), max_body=1000), UpstreamError)
    assert found == UpstreamError(content_type="application/json", body=event)
    assert detail(status(UpstreamBroken("died"), max_body=1000), UpstreamError) is None


def test_a_bug_shows_its_id_and_nothing_else() -> None:
    limits = RateLimitState(BucketState(20, 19, 0.0), None)
    made = bug_in(Known("id-7", backend="main", endpoint="http://secret:1", rate_limit=limits))
    assert (made.reason, made.code, made.receipt) == ("INTERNAL", code_pb2.INTERNAL, Known("id-7", rate_limit=limits))
    assert "id-7" in made.message
    info = detail(status_of(made, max_body=0), ErrorInfo)
    assert info is not None
    assert dict(info.metadata) == {"request_id": "id-7", "backend": ""}


def test_a_trace_is_named_when_there_is_one() -> None:
    for found in (status(TooLarge("large"), 0, "abc"), status_of(bug_in(RECEIPT, "abc"), max_body=0)):
        info = detail(found, ErrorInfo)
        assert info is not None
        assert info.metadata["trace_id"] == "abc"
    info = detail(status(TooLarge("large"), max_body=0), ErrorInfo)
    assert info is not None
    assert dict(info.metadata) == {"request_id": "id-1", "backend": "main"}


def detail(made: status_pb2.Status, kind: type[M]) -> M | None:
    for packed in made.details:
        found = kind()
        if packed.Unpack(found):
            return found
    return None


def test_open_breakers_say_when_one_lets_a_call_through() -> None:
    assert retry_delay(NoHealthyEndpoint("all down", 17.5)) == 17.5
