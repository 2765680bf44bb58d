"""What finished calls came to, by a name that a client or a reload may choose: the first names have a place of their own."""

from collections.abc import Mapping

from msgspec import Struct

from lexora_contract.answer import Usage
from lexora_router.telemetry.account import OTHER


class Counts(Struct, array_like=True, gc=False):
    """What finished calls came to."""

    total: int = 0
    failed: int = 0
    cancelled: int = 0
    tokens_input: int = 0
    tokens_output: int = 0
    tokens_cached: int = 0

    @property
    def successful(self) -> int:
        """Those that the client got a whole answer to."""
        return self.total - self.failed - self.cancelled

    def add(self, usage: Usage | None, *, failed: bool, cancelled: bool) -> None:
        """Count one call."""
        self.total += 1
        self.failed += failed
        self.cancelled += cancelled
        if usage is not None:
            self.tokens_input += usage.input_tokens
            self.tokens_output += usage.output_tokens
            self.tokens_cached += usage.cached_tokens

    def merge(self, others: "Counts") -> None:
        """Count all that others have counted."""
        self.total += others.total
        self.failed += others.failed
        self.cancelled += others.cancelled
        self.tokens_input += others.tokens_input
        self.tokens_output += others.tokens_output
        self.tokens_cached += others.tokens_cached


class CountsByRecentName(dict[str, Counts]):
    """Counts of the `most` names that were counted last; "other" has those of all that were before them.

    For names that come and go, such as the addresses of discovered endpoints: the first ones would take the room for ever.
    """

    def __init__(self, most: int) -> None:
        super().__init__()
        self._most = most

    def add(self, name: str, others: Counts) -> None:
        """Count calls of a name."""
        counts = self.pop(name, None) or Counts()
        counts.merge(others)
        self[name] = counts
        while len(self) > self._most + (OTHER in self):
            oldest = next(each for each in self if each != OTHER)
            self.setdefault(OTHER, Counts()).merge(self.pop(oldest))

    def merge(self, others: Mapping[str, Counts]) -> None:
        """Count all that others have counted."""
        for name, counts in others.items():
            self.add(name, counts)


class CountsByName(dict[str, Counts]):
    """Counts of the first `most` names; all others share "other"."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self._most = most

    def merge(self, others: Mapping[str, Counts]) -> None:
        """Count all that others have counted."""
        for name, counts in others.items():
            self[name].merge(counts)

    def __missing__(self, name: str) -> Counts:
        """The counts of a name that is not among them yet."""
        return self.setdefault(name if len(self) < self._most else OTHER, Counts())
