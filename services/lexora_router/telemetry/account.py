"""What one finished call is counted as: the same words in the log, the statistics and the metrics."""

from asyncio import CancelledError
from collections.abc import Callable, Mapping
from typing import Protocol

import structlog

from lexora_contract.answer import Receipt
from lexora_router.call import Call
from lexora_router.errors import Draining, NoHealthyEndpoint, QueueFull, RateLimited, RequestQuarantined, RouterError
from lexora_router.layers.observe import CLIENT_GONE

_log = structlog.get_logger("lexora.telemetry")

# The name of all that get none of their own.
OTHER = "other"
# Reloads may bring ever new models; these many have a name of their own.
MAX_MODELS = 200


def retries(receipt: Receipt) -> int:
    """Attempts beyond the first, on whatever backend."""
    return max(receipt.attempts - 1, 0)


def rejection(error: BaseException | None) -> str:
    """Why the router itself refused the call for want of room, in one word; empty when it did not."""
    match error:
        case RateLimited():
            return "rate_limit"
        case QueueFull():
            return error.cause
        case NoHealthyEndpoint():
            return "no_healthy_endpoint"
        case RequestQuarantined():
            return "quarantined"
        case Draining():
            return "draining"
    return ""


def straight(receipt: Receipt, error: BaseException | None) -> bool:
    """Whether the call was served at once: the other functions have something to say of all others only."""
    return error is None and receipt.attempts <= 1 and not receipt.hops and not receipt.resumed


def reason(error: BaseException | None) -> str:
    """The error in one word of UPPER_SNAKE; empty when there was none, or the client left."""
    if error is None or isinstance(error, CancelledError):
        return ""
    return error.reason if isinstance(error, RouterError) else "INTERNAL"


def wasted(receipt: Receipt, status: int, error: BaseException | None) -> dict[str, int]:
    """Output tokens of a finished call that were made for nothing, by reason; empty when there were none."""
    found = {"failed_attempt": receipt.lost_tokens} if receipt.lost_tokens else {}
    # An engine that was interrupted has counted up to its last word on usage, which may be its first.
    if error is not None and (made := max(receipt.made, receipt.events - receipt.lost_tokens)):
        found["client_left" if status == CLIENT_GONE else "failed"] = made
    return found


def time_per_token(receipt: Receipt) -> float | None:
    """Mean time in seconds between the tokens of a stream, from the first to its end; None where there are none between."""
    made = receipt.made
    return (receipt.finished_at - receipt.first_event_at) / (made - 1) if made > 1 and receipt.first_event_at else None


_NOTHING: Mapping[str, int] = {}


class CallRecord:
    """A finished call, and all that it counts as, found out once.

    `path`: that of the API, "other" when the call was refused before it had one. `status`: HTTP status (499: the client left).
    `label`: the name that its model counts as. `seconds`: from its receipt to its end. `straight`: it was served at once; then
    the fields after it are empty.
    """

    __slots__ = (
        "call",
        "cancelled",
        "error",
        "failed",
        "label",
        "path",
        "reason",
        "receipt",
        "rejection",
        "retries",
        "seconds",
        "status",
        "straight",
        "tenant",
        "wasted",
    )

    def __init__(self, call: Call, status: int, error: BaseException | None, label: str) -> None:
        self.call = call
        self.receipt = receipt = call.receipt
        self.status = status
        self.error = error
        self.label = label
        self.path = call.path or OTHER
        self.tenant = call.tenant
        self.seconds = receipt.finished_at - call.started
        if straight(receipt, error):
            self.straight, self.failed, self.cancelled = True, False, status == CLIENT_GONE
            self.reason, self.rejection, self.retries, self.wasted = "", "", 0, _NOTHING
            return
        self.straight = False
        self.cancelled = status == CLIENT_GONE
        self.failed = error is not None and not self.cancelled
        self.reason, self.rejection, self.retries = reason(error), rejection(error), retries(receipt)
        self.wasted = wasted(receipt, status, error)


class Book(Protocol):
    """Keeps count of calls, or writes them down. One that counts those under way, too, has a `begin` that gets each call."""

    def end(self, record: CallRecord, /) -> None:
        """The call is over."""


class Account:
    """A recorder that makes one record of each finished call, and enters it in all `books`.

    `label` gives the name that a model counts as. A bug in one book is logged; it is no reason to fail the call, which has its
    answer, or to leave it out of the others.
    """

    def __init__(self, label: Callable[[str], str], *books: Book) -> None:
        self._label = label
        self._begins: list[Callable[[Call], None]] = [book.begin for book in books if hasattr(book, "begin")]
        self._ends = [book.end for book in books]

    def begin(self, call: Call) -> None:
        """A call has come in."""
        for begin in self._begins:
            begin(call)

    def end(self, call: Call, status: int, error: BaseException | None) -> None:
        """The call is over."""
        try:
            label = self._label(call.model)
        except Exception:  # the boundary, as below
            _log.exception("bug", request_id=call.id)
            label = OTHER
        record = CallRecord(call, status, error, label)
        for end in self._ends:
            try:
                end(record)
            except Exception:
                _log.exception("bug", request_id=call.id)
