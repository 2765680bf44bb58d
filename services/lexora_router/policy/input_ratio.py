"""What a tenant's bodies turn out to be in tokens, relative to the estimate by their size."""

from collections import OrderedDict

MAX_TENANTS = 512
_KEPT = 0.8  # of what was learned, at each call: some five calls count
_MOST = 100.0  # times the estimate


class InputRatios:
    """Counted over estimated input tokens of each tenant's last calls, for the MAX_TENANTS that were served last."""

    def __init__(self) -> None:
        self._sums: OrderedDict[str, list[float]] = OrderedDict()  # counted, estimated, and the ratio

    def of(self, tenant: str) -> float:
        """The ratio; 1 of a tenant of whom nothing is known."""
        known = self._sums.get(tenant)
        return 1.0 if known is None else known[2]

    def learn(self, tenant: str, estimated: float, counted: float) -> None:
        """One call more; both are above 0."""
        known = self._sums.get(tenant)
        if known is None:
            known = self._sums[tenant] = [0.0, 0.0, 1.0]
            if len(self._sums) > MAX_TENANTS:
                self._sums.popitem(last=False)
        else:
            self._sums.move_to_end(tenant)
        known[0] = known[0] * _KEPT + counted
        known[1] = known[1] * _KEPT + estimated
        known[2] = min(known[0] / known[1], _MOST)
