"""The page for operators names every metric and every field of the log, with its type and labels, and no other."""

import re

import structlog
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from tests.unit.docs.pages import code, page

from lexora_router.app import RouterApp
from lexora_router.config import Config
from lexora_router.errors import UpstreamBroken
from lexora_router.handler import Call, Usage
from lexora_router.layers.observe import CLIENT_GONE
from lexora_router.telemetry.logs import AccessLog
from lexora_router.telemetry.metrics import BackendCollector, Metrics

OPERATIONS = page("docs/operations.md")


def finished_call() -> Call:
    call = Call("id", "/v1/chat/completions", b"", "application/json", "m", stream=True, started=1.0)
    call.receipt.first_event_at = call.receipt.finished_at = call.receipt.dispatched_at = 2.0
    call.receipt.usage = Usage(1, 1)
    return call


async def test_every_metric_is_named_with_its_type() -> None:
    exposition = RouterApp(Config()).metrics()[0].decode()
    exported = dict(re.findall(r"^# TYPE (\S+) (\S+)$", exposition, re.M))
    assert {code(row[0])[0]: row[1] for row in OPERATIONS.table("metric", "type")} == exported


async def test_every_metric_of_ours_is_named_with_its_labels() -> None:
    app = RouterApp(Config())
    registry = CollectorRegistry()
    metrics, call = Metrics(registry, lambda model: model), finished_call()
    metrics.begin(call)
    metrics.end(call, CLIENT_GONE, None)
    backend = next(iter(app._backends.values()))
    backend.endpoints[0].healthy = True
    registry.register(BackendCollector({backend.name: backend}))
    labels: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(generate_latest(registry).decode()):
        name = family.name + ("_total" if family.type == "counter" else "")
        labels[name] = {label for sample in family.samples for label in sample.labels} - {"le"}
    assert labels["lexora_requests_total"] == {"endpoint", "model", "status"}
    rows = {code(row[0])[0]: set(code(row[2])) for row in OPERATIONS.table("metric", "type")}
    assert {name: found for name, found in rows.items() if name.startswith("lexora_")} == labels


def test_every_metric_in_a_query_exists() -> None:
    known = {code(row[0])[0] for row in OPERATIONS.table("metric", "type")}
    asked = re.findall(r"\blexora_[a-z_]+", "\n".join(text for _, text in OPERATIONS.blocks if "rate(" in text))
    assert asked
    assert {name.removesuffix("_bucket") for name in asked} <= known


def test_every_field_of_a_call_s_line_is_named() -> None:
    with structlog.testing.capture_logs() as lines:
        AccessLog().end(finished_call(), 502, UpstreamBroken("words"))
    (line,) = lines
    named = [field for row in OPERATIONS.table("field", "meaning") for field in code(row[0])]
    assert len(named) == len(set(named))
    assert set(named) == set(line) - {"event", "log_level"}
