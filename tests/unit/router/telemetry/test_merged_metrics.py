from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from lexora_router.config import Config
from lexora_router.process.app import RouterApp
from lexora_router.telemetry.merged_metrics import JOINED, Family, Joined, collected, joined, left, of_worker

# Gauges that are parts of a whole.
SUMMED = {
    "lexora_active_requests",
    "lexora_endpoint_in_flight",
    "lexora_quarantined_requests",
    "lexora_queue_bytes",
    "lexora_endpoint_limit",
    "lexora_queue_bytes_limit",
    "lexora_queue_depth",
    "lexora_queue_limit",
}


def worker(number: int, calls: int, health: float) -> list[Family]:
    registry = CollectorRegistry()
    Counter("lexora_requests", "Calls.", ["model"], registry=registry).labels("m").inc(calls)
    seconds = Histogram("lexora_seconds", "Time.", buckets=(1.0, 5.0), registry=registry)
    for _ in range(calls):
        seconds.observe(number)
    Gauge("lexora_active_requests", "Under way.", registry=registry).set(number)
    Gauge("lexora_backend_health", "Health.", registry=registry).set(health)
    Gauge("process_open_fds", "Files.", registry=registry).set(10 * number)
    return of_worker(collected(registry.collect), number)


def values(families: list[Family]) -> dict[str, float]:
    text = generate_latest(Joined(families)).decode()  # type: ignore[arg-type]  # it asks for `collect` only
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    assert len({(sample.name, str(sample.labels)) for sample in samples}) == len(samples)
    return {sample.name + "".join(sample.labels.values()): sample.value for sample in samples}


def test_workers_are_one_for_a_scraper() -> None:
    found = values(joined([worker(1, 3, 1.0), worker(2, 4, 0.0)]))
    assert found["lexora_requests_totalm"] == 7
    assert (found["lexora_seconds_bucket1.0"], found["lexora_seconds_bucket5.0"], found["lexora_seconds_count"]) == (3, 7, 7)
    assert found["lexora_seconds_sum"] == 3 * 1 + 4 * 2
    assert found["lexora_active_requests"] == 3
    assert found["lexora_backend_health"] == 0.5
    assert (found["process_open_fds1"], found["process_open_fds2"]) == (10, 20)


def test_of_a_worker_that_has_ended_only_what_it_counted_is_left() -> None:
    found = values(joined([worker(1, 3, 1.0), left(worker(2, 4, 0.0))]))
    assert found["lexora_requests_totalm"] == 7
    assert found["lexora_active_requests"] == 1
    assert found["lexora_backend_health"] == 1.0
    assert "process_open_fds2" not in found


def test_of_two_processes_with_one_number_the_first_is_shown() -> None:
    assert values(joined([worker(1, 1, 1.0), worker(1, 2, 1.0)]))["process_open_fds1"] == 10


async def test_every_gauge_of_a_router_is_joined_on_purpose() -> None:
    app = RouterApp(Config.model_validate({"state": {"url": "valkey://localhost"}}))
    gauges = {each.name for each in collected(app.registry.collect) if each.type == "gauge"}
    ours = {name for name in gauges if not name.startswith("process_")}
    assert ours - JOINED.keys() == SUMMED
