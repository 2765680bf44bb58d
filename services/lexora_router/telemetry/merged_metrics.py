"""The metrics of several workers as those of one gateway: as data that travels, joined, and as Prometheus' client has them."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from msgspec import Struct
from prometheus_client.core import Metric

Labels = tuple[tuple[str, str], ...]  # sorted by name


class Family(Struct, array_like=True):
    """One metric: its samples by their names (name_bucket, name_total, ...) and labels."""

    name: str
    text: str
    type: str
    samples: list[tuple[str, Labels, float]]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


# What is neither counted nor a share of a whole: the same thing seen by each worker.
JOINED: Mapping[str, Callable[[Sequence[float]], float]] = {
    "lexora_backend_health": _mean,
    "lexora_breaker_state": max,
    "lexora_build_info": max,
    "lexora_config_last_reload_success": min,
    "lexora_config_reloads": max,  # each reload is one of every worker
    "lexora_discovered_endpoints": max,
    "lexora_discovery_failing": max,
    "lexora_discovery_last_success_timestamp_seconds": min,
    "lexora_endpoint_available": min,
    "lexora_issuer_keys": max,
    "lexora_issuer_keys_readable": min,
    "lexora_keys": max,
    "lexora_keys_readable": min,
    "lexora_state_replicas": max,
    "lexora_state_shared": min,
    "lexora_tls_certificate_expiry_timestamp_seconds": min,
    "lexora_tls_files_refused": max,
}
# Of a process, and of nothing else: each worker has its own.
_OF_A_PROCESS = ("process_", "python_")
# What a worker that has ended leaves: what it counted, and not what it was like.
_COUNTED = ("counter", "histogram", "summary")


def collected(collect: Callable[[], Iterable[Metric]]) -> list[Family]:
    """The metrics of this process."""
    return [
        Family(
            metric.name,
            metric.documentation,
            metric.type,
            [(sample.name, tuple(sorted(sample.labels.items())), float(sample.value)) for sample in metric.samples],
        )
        for metric in collect()
    ]


def of_worker(families: Iterable[Family], worker: int) -> list[Family]:
    """The metrics of a worker, of which those of its process have a label that says whose they are."""
    return [_labelled(each, worker) if each.name.startswith(_OF_A_PROCESS) else each for each in families]


def left(families: Iterable[Family]) -> list[Family]:
    """What is left of them when the process has ended."""
    return [each for each in families if each.type in _COUNTED and not each.name.startswith(_OF_A_PROCESS)]


def joined(parts: Iterable[Iterable[Family]]) -> list[Family]:
    """The metrics of all parts as one. Of what only one process may have, the first part's is taken."""
    found: dict[str, tuple[Family, dict[tuple[str, Labels], list[float]]]] = {}
    for part in parts:
        for family in part:
            _, values = found.setdefault(family.name, (family, {}))
            for name, labels, value in family.samples:
                values.setdefault((name, labels), []).append(value)
    return [_join(family, values) for family, values in found.values()]


class Joined:
    """Families, as Prometheus' encoders ask a registry for them."""

    def __init__(self, families: Iterable[Family]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        """The metrics."""
        for family in self._families:
            metric = Metric(family.name, family.text, family.type)
            for name, labels, value in family.samples:
                metric.add_sample(name, dict(labels), value)
            yield metric


def _labelled(family: Family, worker: int) -> Family:
    label = ("worker", str(worker))
    samples = [(name, tuple(sorted((*labels, label))), value) for name, labels, value in family.samples]
    return Family(family.name, family.text, family.type, samples)


def _join(family: Family, values: Mapping[tuple[str, Labels], list[float]]) -> Family:
    join: Callable[[Sequence[float]], Any] = JOINED.get(family.name, sum)
    if family.name.startswith(_OF_A_PROCESS):
        join = _first
    return Family(family.name, family.text, family.type, [(*key, join(found)) for key, found in values.items()])


def _first(values: Sequence[float]) -> float:
    return values[0]
