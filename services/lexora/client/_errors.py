"""What a failed call says, read from its google.rpc.Status, and whether repeating it makes sense."""

from typing import Any

import grpc
from google.protobuf.message import DecodeError
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status

from lexora.v1.errors_pb2 import UpstreamError
from lexora.v1.receipt_pb2 import Receipt

_DETAILS = "grpc-status-details-bin"


class LexoraError(Exception):
    """A call failed; the message is readable.

    `code` is the gRPC status; `reason` is the router's own word for it (UPPER_SNAKE, empty when it never answered), which code
    may branch on; `field` names what is wrong in the request; `retry_after` are the seconds after which it may be repeated,
    None where it should not; `upstream` is an engine's own answer, and `receipt` what happened so far, where there are such.
    """

    def __init__(self, code: grpc.StatusCode, message: str, status: Status | None = None) -> None:
        super().__init__(message or code.name)
        self.code = code
        self.reason = ""
        self.field = ""
        self.retry_after: float | None = None
        self.upstream: UpstreamError | None = None
        self.receipt: Receipt | None = None
        for detail in status.details if status is not None else ():
            self._read(detail)

    def _read(self, detail: Any) -> None:
        info, retry, bad, upstream, receipt = ErrorInfo(), RetryInfo(), BadRequest(), UpstreamError(), Receipt()
        if detail.Unpack(info):
            self.reason = info.reason
        elif detail.Unpack(retry):
            self.retry_after = retry.retry_delay.seconds + retry.retry_delay.nanos / 1e9
        elif detail.Unpack(bad) and bad.field_violations:
            self.field = bad.field_violations[0].field
        elif detail.Unpack(upstream):
            self.upstream = upstream
        elif detail.Unpack(receipt):
            self.receipt = receipt


def error_of(error: grpc.RpcError) -> LexoraError:
    """The error that a caller gets for one of gRPC's, blocking or not."""
    call: Any = error  # grpc's errors are calls as well, which its types do not say
    status = None
    for name, value in call.trailing_metadata() or ():
        if name == _DETAILS:
            try:
                status = Status.FromString(value)
            except DecodeError:
                break
    return LexoraError(call.code(), call.details() or "", status)


def wait_before(error: LexoraError, retries_left: int, seconds_left: float | None) -> float | None:
    """Seconds to wait before the call is repeated; None when it must not be, or its deadline would pass first."""
    wait = error.retry_after
    if wait is None or retries_left <= 0 or (seconds_left is not None and wait >= seconds_left):
        return None
    return wait
