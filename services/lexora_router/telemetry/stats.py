"""Counters since the start, for /stats and GetStats."""

from collections import Counter
from collections.abc import Callable

from lexora_router.errors import RouterError
from lexora_router.handler import Call
from lexora_router.layers.observe import CLIENT_GONE
from lexora_router.telemetry.account import hops, rejection, retries


class Stats:
    """A recorder that counts. Every map is keyed by configured or listed names, so none can grow without bound."""

    def __init__(self, label: Callable[[str], str]) -> None:
        self._label = label
        self.active = 0
        self.total = self.succeeded = self.failed = self.cancelled = 0
        self.tokens_input = self.tokens_output = self.retries = self.fallbacks = self.resumed = 0
        self.seconds = 0.0
        self.per_path: Counter[str] = Counter()
        self.per_model: Counter[str] = Counter()
        self.per_backend: Counter[str] = Counter()
        self.errors: Counter[str] = Counter()
        self.rejected: Counter[str] = Counter()

    def begin(self, call: Call) -> None:
        """One more under way."""
        self.active += 1

    def end(self, call: Call, status: int, error: BaseException | None) -> None:
        """One less under way, one more finished."""
        self.active -= 1
        self.total += 1
        if error is None:
            self.succeeded += 1
        elif status == CLIENT_GONE:
            self.cancelled += 1
        else:
            self.failed += 1
            self.errors[error.reason if isinstance(error, RouterError) else "INTERNAL"] += 1
            if reason := rejection(error):
                self.rejected[reason] += 1
        receipt = call.receipt
        self.seconds += receipt.finished_at - call.started
        self.retries += retries(receipt)
        if receipt.fallback:
            self.fallbacks += len(hops(receipt))
        if receipt.resumed:
            self.resumed += 1
        self.per_path[call.path] += 1
        self.per_model[self._label(call.model)] += 1
        if receipt.backend:
            self.per_backend[receipt.backend] += 1
        if receipt.usage is not None:
            self.tokens_input += receipt.usage.input_tokens
            self.tokens_output += receipt.usage.output_tokens

    @property
    def success_rate(self) -> float:
        """Share of finished calls that succeeded, cancelled ones left out; 1 before the first."""
        judged = self.succeeded + self.failed
        return self.succeeded / judged if judged else 1.0
