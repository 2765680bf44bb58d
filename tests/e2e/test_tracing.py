"""Spans and metrics of a real gateway, as they arrive at a collector: who is whose parent, and what each one says."""

import json
import secrets
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import grpc
import httpx
import pytest
from opentelemetry.proto.metrics.v1.metrics_pb2 import HistogramDataPoint

from lexora.v1 import call_pb2, chat_pb2, router_pb2
from lexora.v1.router_pb2_grpc import RouterServiceStub
from tests.support.otlp import Client, Receiver, Seen, until
from tests.support.raw_server import closed_port
from tests.support.servers import Gateway, Simulator, base_config

MODEL = "qwen3-32b"
CHAT = "/v1/chat/completions"
SECRET = "The password of the fox is swordfish."


@pytest.fixture(scope="module")
def sim() -> Iterator[Simulator]:
    with Simulator("--itl-ms", "2", model=MODEL) as simulator:
        yield simulator


@pytest.fixture(scope="module")
def spare() -> Iterator[Simulator]:
    """The other replica of `twins`."""
    with Simulator("--itl-ms", "2", model=MODEL) as simulator:
        yield simulator


@pytest.fixture(scope="module")
def collector() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


@pytest.fixture(scope="module")
def gateway(
    sim: Simulator, spare: Simulator, collector: Receiver, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    """A gateway that knows its collector from OpenTelemetry's own variables."""
    one = {"url": sim.url, "model_mapping": {"narrow": MODEL}, "models": ["narrow"]}
    gone = {"url": f"http://127.0.0.1:{closed_port()}", "models": ["lost"], "fallback_backends": ["main"]}
    config = base_config(
        main={"url": sim.url, "models": [MODEL], "fallback_models": {"lost": MODEL}},
        narrow={**one, "max_concurrency": 1, "queue": {"max_size": 1}},
        gone=gone,
        twins={"urls": [sim.url, spare.url], "models": ["twins"], "model_mapping": {"twins": MODEL}},
    )
    config["failover"] = {"resume": True}
    config["retry"] = {"max_retries": 1, "base_delay": 0.01, "budget_floor": 100.0}
    config["health"] |= {"failure_threshold": 1000, "min_calls": 1000}
    config["telemetry"] = {"metrics_interval": 0.3}
    config["logging"] = {"format": "json"}
    env = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.address,
        "OTEL_EXPORTER_OTLP_HEADERS": "x-api-key=s%20ecret",
        "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=test",
        "OTEL_SERVICE_NAME": "gateway-7",
    }
    with Gateway(config, tmp_path_factory.mktemp("gateway"), env=env) as process:
        yield process


@pytest.fixture
def http(gateway: Gateway, sim: Simulator) -> Iterator[httpx.Client]:
    sim.clear()
    with httpx.Client(base_url=gateway.http, timeout=10, verify=False) as client:
        yield client


def chat(model: str = MODEL, **fields: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": SECRET}], "max_tokens": 4} | fields


def logged(gateway: Gateway, trace_id: str) -> dict[str, Any]:
    """The line of the call in a trace."""
    line = gateway.wait_for(rf'.*"trace_id":"{trace_id}".*').group(0)
    return dict(json.loads(line))


def engine_parent(sim: Simulator) -> list[str]:
    return [request["headers"]["traceparent"] for request in sim.posts()]


def test_a_call_has_a_span_its_wait_and_its_attempt(
    http: httpx.Client, gateway: Gateway, sim: Simulator, collector: Receiver
) -> None:
    client = Client()
    answer = http.post(CHAT, json=chat(n=2), headers=client.headers | {"x-request-id": "my-call"}).raise_for_status().json()
    trace = collector.trace(client.trace_id, 3)
    root, (wait,), (attempt,) = trace.root, trace.waits, trace.attempts
    assert (root.name, wait.name, attempt.name) == (f"chat {MODEL}", "queue main", "attempt main")
    assert (root.parent_id, root.remote) == (client.span_id, True)
    assert {wait.parent_id, attempt.parent_id} == {root.span_id}
    assert not any(span.remote for span in (wait, attempt))
    assert root.start <= wait.start <= wait.end <= attempt.start <= attempt.end <= root.end
    assert len({root.span_id, wait.span_id, attempt.span_id}) == 3
    port = int(sim.url.rpartition(":")[2])
    assert root.attributes == {
        "lexora.request_id": "my-call",
        "url.path": CHAT,
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "vllm",
        "gen_ai.request.model": MODEL,
        "gen_ai.request.max_tokens": 4,
        "gen_ai.request.choice.count": 2,
        "gen_ai.response.model": MODEL,
        "gen_ai.response.finish_reasons": ["length", "length"],
        "gen_ai.usage.input_tokens": answer["usage"]["prompt_tokens"],
        "gen_ai.usage.output_tokens": answer["usage"]["completion_tokens"],
        "http.response.status_code": 200,
        "lexora.backend": "main",
        "lexora.attempts": 1,
        "lexora.priority": 50,
    }
    assert wait.attributes == {"lexora.backend": "main", "lexora.priority": 50}
    assert wait.events == ("admitted",)
    assert attempt.attributes == {
        "server.address": "127.0.0.1",
        "server.port": port,
        "lexora.backend": "main",
        "lexora.attempt": 1,
        "lexora.outcome": "good",
    }
    assert attempt.events == ("first_token",)
    assert not any(span.failed for span in trace.spans)
    (request,) = sim.posts()
    assert request["headers"]["traceparent"] == f"00-{client.trace_id}-{attempt.span_id}-01"
    assert request["headers"]["tracestate"] == "vendor=1"
    assert logged(gateway, client.trace_id)["request_id"] == "my-call"


def test_who_speaks_and_with_what_key(http: httpx.Client, collector: Receiver) -> None:
    client = Client()
    http.post(CHAT, json=chat(), headers=client.headers).raise_for_status()
    collector.trace(client.trace_id, 3)
    assert collector.metadata["x-api-key"] == "s ecret"
    told = collector.resource
    assert (told["service.name"], told["deployment.environment.name"]) == ("gateway-7", "test")
    assert {"service.version", "service.instance.id"} <= set(told)


def test_a_stream_over_grpc(gateway: Gateway, sim: Simulator, collector: Receiver) -> None:
    sim.clear()
    client = Client()
    request = router_pb2.StreamRequest(
        call=call_pb2.Call(
            chat=chat_pb2.ChatRequest(model=MODEL, messages=[chat_pb2.ChatMessage(role=chat_pb2.ROLE_USER, text="hi")])
        )
    )
    request.call.chat.sampling.max_tokens = 3
    with grpc.insecure_channel(gateway.grpc) as channel:
        list(RouterServiceStub(channel).Stream(request, metadata=tuple(client.headers.items())))
    trace = collector.trace(client.trace_id, 3)
    attributes = trace.root.attributes
    assert trace.root.parent_id == client.span_id
    assert attributes["gen_ai.request.stream"] is True
    assert 0 < attributes["gen_ai.response.time_to_first_chunk"] < trace.root.end - trace.root.start
    assert attributes["gen_ai.response.finish_reasons"] == ["length"]
    assert attributes["gen_ai.usage.output_tokens"] == 3
    assert engine_parent(sim) == [f"00-{client.trace_id}-{trace.attempts[0].span_id}-01"]


def test_each_attempt_has_its_span_and_its_engine_knows_which(http: httpx.Client, sim: Simulator, collector: Receiver) -> None:
    sim.fault("status=503", count=1, path=CHAT)
    client = Client()
    http.post(CHAT, json=chat(), headers=client.headers).raise_for_status()
    trace = collector.trace(client.trace_id, 4)
    first, second = trace.attempts
    assert (first.failed, second.failed, trace.root.failed) == (True, False, False)
    assert (first.attributes["error.type"], first.attributes["lexora.outcome"]) == ("UPSTREAM_ERROR", "busy")
    assert first.attributes["http.response.status_code"] == 503
    assert [span.attributes["lexora.attempt"] for span in (first, second)] == [1, 2]
    assert trace.root.attributes["lexora.attempts"] == 2
    assert engine_parent(sim) == [f"00-{client.trace_id}-{span.span_id}-01" for span in (first, second)]


def test_a_stream_that_goes_on_elsewhere_has_an_attempt_for_each_engine(
    http: httpx.Client, sim: Simulator, collector: Receiver
) -> None:
    sim.fault("die_after=3", count=1, path=CHAT)
    for _ in range(20):  # until the one that dies is drawn
        client = Client()
        asked = chat("twins", stream=True, max_tokens=10, ignore_eos=True)
        http.post(CHAT, json=asked, headers=client.headers).raise_for_status()
        trace = collector.trace(client.trace_id, 3)
        if "lexora.resumed" in trace.root.attributes:
            break
    assert trace.root.attributes["lexora.resumed"] == "token_ids"
    assert not trace.root.failed
    first, second = trace.attempts
    assert (first.failed, first.attributes["error.type"], first.events) == (True, "UPSTREAM_BROKEN", ("first_token",))
    assert (second.failed, second.attributes["lexora.attempt"]) == (False, 2)
    assert first.attributes["server.port"] != second.attributes["server.port"]
    assert trace.root.attributes["gen_ai.usage.output_tokens"] == 10
    assert trace.root.attributes["gen_ai.response.finish_reasons"] == ["length"]


def test_a_fallback_is_a_second_wait_and_a_second_backend(http: httpx.Client, collector: Receiver) -> None:
    client = Client()
    http.post(CHAT, json=chat("lost"), headers=client.headers).raise_for_status()
    trace = collector.trace(client.trace_id, 5)
    names = list(dict.fromkeys(span.name for span in trace.spans))  # how often an engine that is gone is asked is not said here
    assert names == ["chat lost", "queue gone", "attempt gone", "queue main", "attempt main"]
    *failed, last = trace.attempts
    assert {span.attributes.get("error.type") for span in failed} == {"UPSTREAM_UNREACHABLE"}
    assert "error.type" not in last.attributes
    root = trace.root.attributes
    assert (root["lexora.backend"], root["gen_ai.request.model"], root["gen_ai.response.model"]) == ("main", "lost", MODEL)
    assert root["lexora.fallback"] == "gone->main;reason=UPSTREAM_UNREACHABLE"


def test_a_wait_takes_as_long_as_it_does_and_a_refusal_says_why(
    http: httpx.Client, gateway: Gateway, sim: Simulator, collector: Receiver
) -> None:
    first, second, third, left = (Client() for _ in range(4))
    narrow = chat("narrow", stream=True, max_tokens=100)
    with ExitStack() as stack:
        stream = stack.enter_context(http.stream("POST", CHAT, json=narrow, headers=first.headers))
        lines = stream.iter_lines()
        next(lines)
        waiting = leave_open(stack, gateway, narrow, second)
        until(lambda: gateway.metric("lexora_queue_depth", backend="narrow"), lambda depth: depth == 1)
        refused = http.post(CHAT, json=narrow, headers=third.headers)
        assert refused.status_code == 429
        assert refused.json()["error"]["trace_id"] == third.trace_id
        list(lines)
        assert waiting.recv(12) == b"HTTP/1.1 200"
        # This one leaves while it waits.
        leaving = leave_open(stack, gateway, narrow, left)
        until(lambda: gateway.metric("lexora_queue_depth", backend="narrow"), lambda depth: depth == 1)
        leaving.close()
        trace = collector.trace(left.trace_id, 2)
    (wait,) = trace.waits
    assert (wait.events, wait.attributes["error.type"], wait.failed) == (("left",), "CANCELLED", False)
    assert (trace.root.attributes["http.response.status_code"], trace.root.failed, trace.attempts) == (499, False, [])
    (wait,) = collector.trace(third.trace_id, 2).waits
    assert (wait.events, wait.failed) == (("refused",), True)
    assert (wait.attributes["error.type"], wait.attributes["lexora.rejected"]) == ("QUEUE_FULL", "queue_full")
    before, after = collector.trace(first.trace_id, 3), collector.trace(second.trace_id, 3)
    assert after.waits[0].end - after.waits[0].start > 0.01
    assert after.waits[0].end >= before.attempts[0].end
    assert logged(gateway, third.trace_id)["rejected"] == "queue_full"


def leave_open(stack: ExitStack, gateway: Gateway, body: dict[str, Any], client: Client) -> socket.socket:
    """A request on a connection of its own, whose answer nobody reads yet."""
    host, _, port = gateway.http.removeprefix("http://").partition(":")
    connection = stack.enter_context(socket.create_connection((host, int(port)), timeout=10))
    data = json.dumps(body).encode()
    head = "".join(f"{name}: {value}\r\n" for name, value in client.headers.items())
    kind = f"content-type: application/json\r\ncontent-length: {len(data)}\r\n"
    connection.sendall(f"POST {CHAT} HTTP/1.1\r\nhost: x\r\n{kind}{head}\r\n".encode() + data)
    return connection


def test_a_client_that_leaves_in_mid_stream(http: httpx.Client, collector: Receiver) -> None:
    client = Client()
    with http.stream("POST", CHAT, json=chat(stream=True, max_tokens=2000), headers=client.headers) as stream:
        next(stream.iter_lines())
    trace = collector.trace(client.trace_id, 3)
    (attempt,) = trace.attempts
    assert (trace.root.attributes["http.response.status_code"], trace.root.attributes["error.type"]) == (499, "CANCELLED")
    assert (attempt.attributes["lexora.outcome"], attempt.attributes["error.type"]) == ("neutral", "CANCELLED")
    assert not any(span.failed for span in (trace.root, attempt))
    assert attempt.events == ("first_token",)


def test_a_failed_call_says_so_in_its_span_its_body_and_its_line(
    http: httpx.Client, gateway: Gateway, sim: Simulator, collector: Receiver
) -> None:
    sim.fault("reset", count=2, path=CHAT)
    client = Client()
    answer = http.post(CHAT, json=chat(), headers=client.headers)
    assert (answer.status_code, answer.json()["error"]["trace_id"]) == (502, client.trace_id)
    root = collector.trace(client.trace_id, 4).root
    assert (root.failed, root.attributes["error.type"], root.attributes["http.response.status_code"]) == (
        True, "UPSTREAM_UNREACHABLE", 502
    )  # fmt: skip
    assert logged(gateway, client.trace_id)["error"] == "UPSTREAM_UNREACHABLE"


def test_a_call_that_is_refused_at_once_has_a_span(http: httpx.Client, gateway: Gateway, collector: Receiver) -> None:
    client = Client()
    answer = http.post(CHAT, content=b'{"model":', headers=client.headers | {"content-type": "application/json"})
    assert (answer.status_code, answer.json()["error"]["trace_id"]) == (400, client.trace_id)
    (span,) = collector.trace(client.trace_id, 1).spans
    assert (span.attributes["error.type"], span.failed, span.parent_id) == ("INVALID_REQUEST", False, client.span_id)
    assert logged(gateway, client.trace_id)["status"] == 400


def test_what_the_facade_refuses_has_a_span_too(http: httpx.Client, gateway: Gateway, collector: Receiver) -> None:
    client = Client()
    answer = http.post(CHAT, content=b"text", headers=client.headers | {"content-type": "text/plain"})
    assert (answer.status_code, answer.json()["error"]["trace_id"]) == (400, client.trace_id)
    (span,) = collector.trace(client.trace_id, 1).spans
    assert (span.name, span.attributes["http.response.status_code"]) == ("call", 400)
    assert logged(gateway, client.trace_id)["status"] == 400


def test_without_a_client_s_trace_the_call_begins_one(
    http: httpx.Client, gateway: Gateway, sim: Simulator, collector: Receiver
) -> None:
    headers = {"x-request-id": secrets.token_hex(8), "traceparent": "00-nonsense", "tracestate": "of=nothing"}
    http.post(CHAT, json=chat(), headers=headers).raise_for_status()
    line = json.loads(gateway.wait_for(rf'.*"request_id":"{headers["x-request-id"]}".*').group(0))
    trace = collector.trace(line["trace_id"], 3)
    assert (trace.root.parent_id, trace.root.remote) == ("", False)
    (request,) = sim.posts()
    assert request["headers"]["traceparent"] == f"00-{line['trace_id']}-{trace.attempts[0].span_id}-03"  # sampled, random
    assert "tracestate" not in request["headers"]


def test_a_client_that_decided_against_it_is_followed(
    http: httpx.Client, gateway: Gateway, sim: Simulator, collector: Receiver
) -> None:
    client, later = Client(flags="00"), Client()
    http.post(CHAT, json=chat(), headers=client.headers).raise_for_status()
    http.post(CHAT, json=chat(), headers=later.headers).raise_for_status()
    collector.trace(later.trace_id, 3)
    assert not [span for span in collector.spans if span.trace_id == client.trace_id]
    assert engine_parent(sim)[0] == client.headers["traceparent"]
    assert logged(gateway, client.trace_id)["status"] == 200


def test_nothing_that_was_said_is_in_a_span(http: httpx.Client, collector: Receiver) -> None:
    client = Client()
    answer = http.post(CHAT, json=chat(), headers=client.headers).raise_for_status().json()
    collector.trace(client.trace_id, 3)
    told = repr(collector.spans)
    assert SECRET not in told
    assert answer["choices"][0]["message"]["content"] not in told
    assert not [span for span in collector.spans if "gen_ai.input.messages" in span.attributes]


def test_metrics_come_by_the_names_of_the_conventions(http: httpx.Client, collector: Receiver) -> None:
    key = {"gen_ai.operation.name": "text_completion", "gen_ai.provider.name": "vllm", "gen_ai.request.model": MODEL}
    asked = {"model": MODEL, "prompt": SECRET, "max_tokens": 4}
    usage = http.post("/v1/completions", json=asked).raise_for_status().json()["usage"]
    with http.stream("POST", "/v1/completions", json=asked | {"stream": True}) as stream:
        list(stream.iter_lines())
    until(
        lambda: [point.count for point in points(collector, "gen_ai.server.request.duration", key)], lambda found: found == [2]
    )
    for name in ("gen_ai.server.time_to_first_token", "gen_ai.server.time_per_output_token"):
        (point,) = points(collector, name, key)
        assert point.count == sum(point.bucket_counts) == 1
        assert len(point.bucket_counts) == len(point.explicit_bounds) + 1
        assert 0 < point.sum < 60  # seconds, not milliseconds
    for kind, field in (("input", "prompt_tokens"), ("output", "completion_tokens")):
        (point,) = points(collector, "gen_ai.client.token.usage", key | {"gen_ai.token.type": kind})
        assert (point.count, point.sum) == (2, 2 * usage[field])


def test_metrics_tell_failures_apart_and_no_made_up_model(http: httpx.Client, collector: Receiver) -> None:
    http.post(CHAT, json=chat("made-up-" + secrets.token_hex(4)))
    wanted = {"gen_ai.request.model": "other", "error.type": "UPSTREAM_ERROR"}
    (found,) = until(
        lambda: [
            attributes
            for attributes, _ in collector.points("gen_ai.server.request.duration")
            if wanted.items() <= attributes.items()
        ]
    )
    assert found["gen_ai.operation.name"] == "chat"
    assert not [name for name in map(str, collector.points("gen_ai.server.request.duration")) if "made-up" in name]
    (span,) = until(lambda: [span for span in collector.spans if "made-up" in span.attributes.get("gen_ai.request.model", "")])
    assert span.name == "chat other"


def points(collector: Receiver, name: str, wanted: dict[str, str]) -> list[HistogramDataPoint]:
    return [point for attributes, point in collector.points(name) if attributes == wanted]


def test_spans_are_counted(gateway: Gateway, collector: Receiver) -> None:
    arrived: list[Seen] = collector.spans
    until(lambda: gateway.metric("lexora_spans_total", outcome="exported"), lambda count: count == len(arrived))
    assert gateway.metric("lexora_spans_total", outcome="dropped") == 0
