"""The calls that finished last, without questions, answers and users."""

from collections import deque
from dataclasses import dataclass
from itertools import islice

from lexora_contract.answer import Receipt
from lexora_router.call import Call
from lexora_router.telemetry.account import CallRecord

KEPT = 200
MAX_MODEL_LENGTH = 128


@dataclass(slots=True)
class RecentCall:
    """One finished call; instants are those of the receipt."""

    id: str
    path: str
    model: str
    stream: bool
    started: float
    status: int
    error: str
    receipt: Receipt


class RecentCalls:
    """The book that remembers the last 200 calls."""

    def __init__(self) -> None:
        self._calls: deque[RecentCall] = deque(maxlen=KEPT)

    def begin(self, call: Call) -> None:
        """Nothing: only finished calls are kept."""

    def end(self, record: CallRecord) -> None:
        """Remember the call."""
        call, path, word = record.call, record.path, record.reason
        model = call.model[:MAX_MODEL_LENGTH]
        self._calls.append(RecentCall(call.id, path, model, call.stream, call.started, record.status, word, call.receipt))

    def last(self, most: int) -> list[RecentCall]:
        """The last ones, the latest first."""
        return list(islice(reversed(self._calls), most))
