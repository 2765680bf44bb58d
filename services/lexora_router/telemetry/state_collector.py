"""What is shared with other replicas, read at scrape time."""

from collections.abc import Iterable
from itertools import accumulate

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from lexora_router.state.link import StateLink
from lexora_router.state.tally import BOUNDS


class StateCollector:
    """Reads the link; without one there are no metrics."""

    def __init__(self, link: StateLink | None) -> None:
        self._link = link

    def collect(self) -> Iterable[Metric]:
        """Whether it is shared, by how many, and how the exchanges went."""
        if self._link is None:
            return ()
        link, tally = self._link, self._link.tally
        shared = GaugeMetricFamily("lexora_state_shared", "1 while the store answers, 0 while it is out of reach.")
        shared.add_metric([], not link.degraded)
        replicas = GaugeMetricFamily("lexora_state_replicas", "Replicas that live, this one included, as the store said last.")
        replicas.add_metric([], link.members)
        exchanges = CounterMetricFamily("lexora_state_exchanges", "Exchanges with the store.", labels=["outcome"])
        exchanges.add_metric(["answered"], tally.answered)
        exchanges.add_metric(["failed"], tally.failed)
        seconds = HistogramMetricFamily("lexora_state_exchange_seconds", "Time of exchanges that were answered.")
        bounds = [*map(str, BOUNDS), "+Inf"]
        seconds.add_metric([], list(zip(bounds, accumulate(tally.seconds), strict=True)), tally.total_seconds)
        requests = CounterMetricFamily(
            "lexora_state_operations", "Requests to the store's programs; an exchange carries several.", labels=["program"]
        )
        for program, count in tally.requests.items():
            requests.add_metric([program], count)
        return shared, replicas, exchanges, seconds, requests
