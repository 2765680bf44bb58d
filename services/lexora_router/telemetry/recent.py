"""The calls that finished last, without questions, answers and users; labels are the client's own, tenants of credentials."""

from collections import deque
from dataclasses import dataclass

from lexora_contract.answer import Receipt
from lexora_contract.labels import Labels
from lexora_router.errors import TooManyAttempts
from lexora_router.telemetry.account import CallRecord

KEPT = 200
MAX_MODEL_LENGTH = 128


@dataclass(slots=True)
class RecentCall:
    """One finished call; instants are those of the receipt, `number` counts calls since the start."""

    number: int
    id: str
    path: str
    model: str
    stream: bool
    started: float
    status: int
    error: str
    receipt: Receipt
    labels: Labels = ()
    session_key: str = ""
    tenant: str = ""  # of its credentials, as `key` is
    key: str = ""


class RecentCalls:
    """The book that remembers the last 200 calls."""

    def __init__(self) -> None:
        self._calls: deque[RecentCall] = deque(maxlen=KEPT)
        self._finished = 0

    def end(self, record: CallRecord) -> None:
        """Remember the call. A flood of guesses at keys, which are counted elsewhere, puts no other out."""
        if record.reason == TooManyAttempts.reason:
            return
        call = record.call
        self._finished += 1
        self._calls.append(
            RecentCall(
                self._finished,
                call.id,
                record.path,
                call.model[:MAX_MODEL_LENGTH],
                call.stream,
                call.started,
                record.status,
                record.reason,
                call.receipt,
                call.labels,
                call.session_key,
                call.principal.account,
                call.principal.key,
            )
        )

    def last(self, before: int | None = None) -> list[RecentCall]:
        """The latest first; only those before the one of this number."""
        return [call for call in reversed(self._calls) if before is None or call.number < before]
