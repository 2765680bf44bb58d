"""What a tenant's bodies turn out to be in tokens, relative to the estimate by their size."""

from collections import OrderedDict

MAX_TENANTS = 512
_KEPT = 0.8  # of what was learned, at each call: some five calls count
_MOST = 100.0  # times the estimate


class InputRatios:
    """Counted over estimated input tokens of each tenant's last calls, for the MAX_TENANTS that were served last."""

    def __init__(self) -> None:
        self._sums: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def of(self, tenant: str) -> float:
        """The ratio; 1 of a tenant of whom nothing is known."""
        counted, estimated = self._sums.get(tenant, (1.0, 1.0))
        return min(counted / estimated, _MOST)

    def learn(self, tenant: str, estimated: float, counted: float) -> None:
        """One call more; both are above 0."""
        before = self._sums.pop(tenant, (0.0, 0.0))
        self._sums[tenant] = (before[0] * _KEPT + counted, before[1] * _KEPT + estimated)
        if len(self._sums) > MAX_TENANTS:
            self._sums.popitem(last=False)
