"""The page for operators names every metric and every field of the log, with its type and labels, and no other."""

import re
from asyncio import CancelledError

import structlog
from prometheus_client.parser import text_string_to_metric_families
from tests.unit.docs.pages import ROOT, code, page

from lexora_contract.answer import Choice, Hop, Usage
from lexora_router.call import Call, Outcome
from lexora_router.config import Config
from lexora_router.errors import Draining, NoHealthyEndpoint, QueueFull, RateLimited, RequestQuarantined
from lexora_router.layers.observe import CLIENT_GONE
from lexora_router.principal import Principal
from lexora_router.process.app import RouterApp
from lexora_router.state.port import Ask
from lexora_router.telemetry.account import CallRecord, rejection
from lexora_router.telemetry.logs import AccessLog

OPERATIONS = page("docs/operations.md")


def finished_call() -> Call:
    call = Call("id", "/v1/chat/completions", b"", "application/json", "m", stream=True, started=1.0)
    call.receipt.first_event_at = call.receipt.finished_at = call.receipt.dispatched_at = 2.0
    call.receipt.usage = Usage(1, 1, cached_tokens=1)
    return call


async def test_every_metric_is_named_with_its_type() -> None:
    exposition = RouterApp(Config.model_validate({"state": {"url": "valkey://localhost"}})).metrics("")[0].decode()
    exported = dict(re.findall(r"^# TYPE (\S+) (\S+)$", exposition, re.M))
    rows = OPERATIONS.rows("metric", "type")
    assert {code(row[0])[0]: row[1] for row in rows} == exported
    assert len(rows) == len(exported), "each once"


async def test_every_metric_of_ours_is_named_with_its_labels() -> None:
    issuer = {"issuer": "https://a.example", "audience": "x", "discovery": True, "tenant": "t"}
    state = {"url": "valkey://localhost"}
    backends = {"main": {"url": "http://e:1"}, "found": {"discover": {"file": "engines.json"}}}
    app = RouterApp(
        Config.model_validate({"auth": {"mode": "jwt", "jwt": [issuer]}, "state": state, "routing": {"backends": backends}})
    )
    discovered = app._assembly.discovery.of("found")
    assert discovered is not None
    discovered.succeeded_at = 1.0
    assert app.state is not None
    app.state.tally.add(0.001, [Ask("credit", b"")])
    (account,) = app._shared.recorders
    for status, error in ((CLIENT_GONE, CancelledError()), (429, RateLimited("words", 1.0, "user:a"))):
        call = finished_call()
        call.receipt.hops = (Hop("main", "spare", "QUEUE_FULL"),)
        call.principal = Principal("acme", "id1")
        account.begin(call)
        account.end(call, status, error)
    backend = next(iter(app._assembly.backends.values()))
    backend.endpoints[0].condition.healthy = True
    labels: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(app.metrics("")[0].decode()):
        name = family.name + ("_total" if family.type == "counter" else "")
        labels[name] = {label for sample in family.samples for label in sample.labels} - {"le"}
    assert labels["lexora_requests_total"] == {"endpoint", "model", "status"}
    rows = {code(row[0])[0]: set(code(row[2])) for row in OPERATIONS.rows("metric", "type")}
    ours = {name: found for name, found in labels.items() if name.startswith("lexora_")}
    assert {name: found for name, found in rows.items() if name.startswith("lexora_")} == ours


def test_every_metric_in_a_query_exists() -> None:
    known = {code(row[0])[0] for row in OPERATIONS.rows("metric", "type")}
    asked = re.findall(r"\blexora_[a-z_]+", "\n".join(text for _, text in OPERATIONS.blocks if "rate(" in text))
    assert asked
    assert {name.removesuffix("_bucket") for name in asked} <= known


def test_every_field_of_a_call_s_line_is_named() -> None:
    with structlog.testing.capture_logs() as lines:
        call = finished_call()
        call.receipt.hops, call.receipt.resumed = (Hop("main", "spare", "QUEUE_FULL"),), "text"
        call.trace = (("traceparent", f"00-{'a' * 32}-{'b' * 16}-01"),)
        call.labels, call.account, call.user = (("team", "search"),), "acme", "alice"
        call.session_key, call.idempotency_key = "chat-7", "key-1"
        call.principal = Principal("acme", "id1")
        call.receipt.auto = Choice("m", "code", 0.9, "rules")
        AccessLog().end(CallRecord(call, 429, QueueFull("words", 1.0), "m"))
    (line,) = lines
    named = [field for row in OPERATIONS.table("field", "meaning") for field in code(row[0])]
    assert len(named) == len(set(named))
    assert set(named) == set(line) - {"event", "log_level"}


def test_every_event_of_the_log_is_named() -> None:
    named = {name for row in OPERATIONS.rows("event", "level") for name in code(row[0])}
    folders = ("services/lexora_router", "services/lexora_cli", "gateway/lexora_gateway")
    sources = [path.read_text(encoding="utf-8") for folder in folders for path in (ROOT / folder).rglob("*.py")]
    logged = {
        name for source in sources for name in re.findall(r'log\w*\.(?:info|warning|error|exception)\(\s*"([^"]+)"', source)
    }
    assert {"call", "serving", "bug"} <= logged
    assert logged <= named


def test_every_reason_of_a_refusal_is_named() -> None:
    reasons = {code(row[0])[0] for row in OPERATIONS.table("reason", "the call was refused because")}
    errors = (RateLimited("x", 1.0, "user:a"), NoHealthyEndpoint("x"), RequestQuarantined("x", 1.0), Draining("x"))
    causes = (QueueFull("x", 1.0, cause) for cause in ("queue_full", "queue_timeout", "deadline"))
    assert reasons == {rejection(error) for error in (*errors, *causes)}


def test_every_outcome_of_an_attempt_is_named() -> None:
    assert {code(row[0])[0] for row in OPERATIONS.table("outcome", "the attempt")} == {outcome.value for outcome in Outcome}


def test_every_attribute_of_a_span_is_named() -> None:
    """Those of calls, attempts and waits: whatever the code can put into one, and nothing else."""
    source = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "services/lexora_router/telemetry/otel").glob("*.py"))
    source = re.sub(r"get_logger\(.*\)", "", source)
    put = set(re.findall(r'"((?:gen_ai|lexora|http|url|server|error)\.[a-z_.]+)"', source))
    sent = {code(row[0])[0] for row in OPERATIONS.table("sent metric", "type")}
    named = {name for row in OPERATIONS.table("attribute", "of") for name in code(row[0])}
    assert named | {"gen_ai.token.type"} == (put - sent) | {"lexora.label.KEY"}
    assert sent <= put
