import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TypeVar, cast

import pytest
import structlog
from google.protobuf.message import Message
from google.rpc import code_pb2
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from tests.support.clock import jumping, now
from tests.support.links import settle
from tests.unit.router.support import CHAT, HEAD, Frames, Scripted, Step

from lexora.v1 import call_pb2
from lexora.v1.chat_pb2 import ROLE_USER, ChatMessage, ChatRequest
from lexora.v1.classify_pb2 import ClassifyRequest
from lexora.v1.embed_pb2 import EmbedRequest
from lexora.v1.errors_pb2 import ERROR_REASON_QUEUE_FULL
from lexora.v1.explain_pb2 import ExplainRequest
from lexora.v1.options_pb2 import FALLBACK_POLICY_NEVER, RESUME_POLICY_NEVER, CallOptions
from lexora.v1.raw_pb2 import RawCall
from lexora.v1.receipt_pb2 import CLASSIFIER_RULES, RESUME_METHOD_TEXT, Receipt
from lexora.v1.recent_calls_pb2 import ListRecentCallsRequest
from lexora.v1.reload_pb2 import ReloadRequest
from lexora.v1.router_pb2 import GenerateRequest, StreamRequest, StreamResponse
from lexora_contract.answer import BucketState, Choice, Head, Hop, RateLimitState, Reply, Usage
from lexora_contract.answer import Receipt as Known
from lexora_contract.messages import receipt_message
from lexora_contract.port import CallContext, CallFailed
from lexora_contract.status import status_of
from lexora_router.call import Call
from lexora_router.edge.admin_service import AdminService
from lexora_router.edge.call_inputs import CallInputs
from lexora_router.edge.explain import Explainer
from lexora_router.edge.guard import Guard
from lexora_router.edge.introspection import Overview
from lexora_router.edge.router_service import RouterService
from lexora_router.edge.services import Services
from lexora_router.edge.serving import Serving
from lexora_router.payload.user_names import bounded

M = TypeVar("M", bound=Message)
JSON_HEAD = Head(200, "application/json", (("x-a", "1"),))
ANSWER = b'{"id":"c","choices":[{"index":0,"message":{"role":"assistant","content":"hi"},"finish_reason":"stop"}]}'
EVENT = b'data: {"id":"c","choices":[{"index":0,"delta":{"content":"hi"}}]}\n\n'
DONE = b"data: [DONE]\n\n"
BODY = b'{"model":"m","messages":[],"seed":9007199254740993}'
STREAM_BODY = b'{"model":"m","messages":[],"stream":true,"stream_options":{"include_usage":true}}'
MESSAGES = [ChatMessage(role=ROLE_USER, text="hello")]


class Seen:
    """A recorder that remembers calls that never reached the pipeline, and their statuses."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.statuses: list[int] = []

    def begin(self, call: Call) -> None:
        assert not self.statuses or call.id

    def end(self, call: Call, status: int, error: BaseException | None) -> None:
        self.calls.append(call)
        self.statuses.append(status)


SEEN = Seen()


async def default_model() -> str:
    return "default-m"


def surrounded(*metadata: tuple[str, str], timeout: float | None = None) -> CallContext:
    return CallContext(metadata, timeout)


def service(*steps: Step, max_body_bytes: int = 10_000, **more: Any) -> tuple[RouterService, Scripted]:
    pipeline = Scripted(*steps)
    overview = cast("Overview", None)
    serving = Serving(pipeline, default_model=default_model, **more)
    guard = Guard(serving, recorders=(SEEN,), clock=now)
    made = RouterService(guard, overview, CallInputs(guard, max_body_bytes))
    return made, pipeline


def around(made: RouterService, explainer: "Explainer | None" = None) -> Services:
    inputs = CallInputs(made.guard, 10_000)
    return Services(made, AdminService(made.guard, cast("Overview", None), inputs, explainer=explainer))


def raw(body: bytes = BODY, path: str = CHAT, **options: Any) -> GenerateRequest:
    return GenerateRequest(call=call_pb2.Call(options=CallOptions(**options), raw=RawCall(path=path, body=body)))


def detail(error: CallFailed, kind: type[M]) -> M:
    made = status_of(error, max_body=1000)
    for packed in made.details:
        found = kind()
        if packed.Unpack(found):
            return found
    raise AssertionError(f"no {kind.__name__} in {made}")


async def refused(request: GenerateRequest, *steps: Step, context: CallContext | None = None, **limits: int) -> CallFailed:
    made, pipeline = service(*steps, **limits)
    with pytest.raises(CallFailed) as raised:
        await made.generate(request, context or surrounded())
    if not steps:
        assert pipeline.calls == [], "the pipeline was reached"
    return raised.value


# -- what a call becomes


@jumping
async def test_what_goes_into_the_head_of_the_engine_s_request_is_bounded() -> None:
    made, pipeline = service(Reply(JSON_HEAD, ANSWER))
    fits = ("tracestate", "x" * 2048)
    await made.generate(raw(), surrounded(("traceparent", "x" * 2049), *[fits] * 100, ("tracestate", "x" * 2049)))
    assert pipeline.calls[0].trace == (fits,)
    long = GenerateRequest(call=call_pb2.Call(raw=RawCall(path=CHAT, body=BODY, content_type="application/json" + ";" * 1024)))
    assert detail(await refused(long), BadRequest).field_violations[0].field == "raw.content_type"


@jumping
async def test_a_user_in_the_body_is_the_tenant_and_has_a_bound() -> None:
    made, pipeline = service(Reply(JSON_HEAD, ANSWER))
    await made.generate(raw(b'{"model":"m","messages":[],"user":"%s"}' % (b"u" * 5000)), surrounded())
    await made.generate(raw(user="u" * 5000), surrounded())
    [user] = {call.user for call in pipeline.calls}
    assert user == bounded("u" * 5000)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, (None, True, True)),
        ({"priority": 0}, (0, True, True)),
        ({"priority": 100}, (100, True, True)),
        ({"fallback": FALLBACK_POLICY_NEVER}, (None, False, True)),
        ({"resume": RESUME_POLICY_NEVER}, (None, True, False)),
        ({"priority": 7, "fallback": FALLBACK_POLICY_NEVER, "resume": RESUME_POLICY_NEVER}, (7, False, False)),
    ],
)
@jumping
async def test_the_options_of_a_call_are_read(options: dict[str, Any], expected: tuple[int | None, bool, bool]) -> None:
    made, pipeline = service(Reply(JSON_HEAD, ANSWER))
    await made.generate(raw(**options), surrounded())
    await made.generate(
        GenerateRequest(call=call_pb2.Call(options=CallOptions(**options), chat=ChatRequest(messages=MESSAGES))), surrounded()
    )
    await made.embed(EmbedRequest(options=CallOptions(**options), texts={"values": ["a"]}), surrounded())
    read = [(call.priority, call.fallback_allowed, call.resume_allowed) for call in pipeline.calls]
    assert read == [expected] * 3


@jumping
async def test_how_many_tokens_a_call_may_use_is_read() -> None:
    made, pipeline = service(Reply(JSON_HEAD, ANSWER))
    for field in ("max_tokens", "max_completion_tokens"):
        await made.generate(raw(b'{"model":"m","messages":[],"%s":77}' % field.encode()), surrounded())
    await made.generate(raw(), surrounded())
    assert [call.max_tokens for call in pipeline.calls] == [77, 77, None]


# -- refusals


@pytest.mark.parametrize("option", [{"priority": -1}, {"priority": 101}, {"fallback": 7}, {"resume": 7}])
@jumping
async def test_an_option_out_of_bounds_goes_no_further(option: dict[str, Any]) -> None:
    error = await refused(raw(**option))
    [(name, _)] = option.items()
    assert (error.code, detail(error, BadRequest).field_violations[0].field) == (code_pb2.INVALID_ARGUMENT, f"options.{name}")


@jumping
async def test_a_request_id_that_is_refused_is_not_sent_back_whole() -> None:
    error = await refused(raw(request_id="x" * 100_000))
    assert status_of(error, max_body=0).ByteSize() < 4000


@jumping
async def test_a_key_is_no_request_id() -> None:
    error = await refused(raw(request_id="sk-lx-secret"))
    assert (error.code, detail(error, BadRequest).field_violations[0].field) == (
        code_pb2.INVALID_ARGUMENT,
        "options.request_id",
    )
    assert b"sk-lx-" not in status_of(error, max_body=4096).SerializeToString()


@jumping
async def test_a_task_goes_to_the_classifier() -> None:
    made, _ = service()
    asked: list[tuple[str, list[str], Call]] = []

    async def classifier(task: str, candidates: Sequence[str], call: Call) -> Choice:
        asked.append((task, list(candidates), call))
        return Choice("coder", "code", 0.9, "rules", "why", (("m", 0.3),))

    made.guard.serving = replace(made.guard.serving, classify=classifier)
    request = ClassifyRequest(options=CallOptions(user="team"), task_description="Sort", candidate_models=["coder", "m"])
    answer = await made.classify(request, surrounded())
    [(task, candidates, call)] = asked
    assert (task, candidates, call.path, call.user) == ("Sort", ["coder", "m"], "/v1/classify-task", "team")
    assert (answer.recommended_model, answer.task_type, answer.confidence) == ("coder", "code", 0.9)
    assert (answer.classifier, answer.reasoning) == (CLASSIFIER_RULES, "why")
    assert [(other.model, other.score) for other in answer.alternatives] == [("m", 0.3)]


@pytest.mark.parametrize("task", ["", " \n ", "x" * 10_001])
@jumping
async def test_a_task_must_have_a_text_of_bounded_length(task: str) -> None:
    made, _ = service()
    with pytest.raises(CallFailed) as raised:
        await made.classify(ClassifyRequest(task_description=task), surrounded())
    assert detail(raised.value, BadRequest).field_violations[0].field == "task_description"


@jumping
async def test_a_bug_is_logged_and_shows_nothing() -> None:
    with structlog.testing.capture_logs() as logs:
        error = await refused(raw(request_id="id-1"), ZeroDivisionError("inner secret"))
    assert error.code == code_pb2.INTERNAL
    assert "secret" not in str(vars(error))
    [entry] = logs
    assert (entry["event"], entry["request_id"]) == ("bug", "id-1")


# -- the receipt


@jumping
async def test_a_receipt_tells_durations_since_the_call_came_in() -> None:
    known = Known(
        "id-1",
        10.0,
        "main",
        "http://e:1",
        "m",
        2,
        Usage(1, 2, 3, 4),
        dispatched_at=10.25,
        first_event_at=11.5,
        finished_at=13.0,
    )
    told = receipt_message(known)
    assert (told.request_id, told.backend, told.endpoint, told.model, told.attempts) == ("id-1", "main", "http://e:1", "m", 2)
    usage = told.usage
    assert (usage.input_tokens, usage.output_tokens, usage.cached_tokens, usage.reasoning_tokens) == (1, 2, 3, 4)
    durations = (told.queue_time, told.time_to_first_token, told.total_time)
    assert [duration.ToTimedelta().total_seconds() for duration in durations] == [0.25, 1.5, 3.0]


def test_a_receipt_tells_of_fallbacks_resumption_and_limits() -> None:
    limits = RateLimitState(BucketState(20, 19, 0.05), BucketState(1000, 700, 18.0))
    told = receipt_message(Known(hops=(Hop("a", "b", "QUEUE_FULL"),), resumed="text", lost_tokens=3, rate_limit=limits))
    [hop] = told.hops
    assert (hop.from_backend, hop.to_backend, hop.reason) == ("a", "b", ERROR_REASON_QUEUE_FULL)
    assert (told.resume_method, told.lost_tokens) == (RESUME_METHOD_TEXT, 3)
    assert (told.rate_limit.requests.limit, told.rate_limit.requests.remaining) == (20, 19)
    assert told.rate_limit.requests.reset.ToTimedelta().total_seconds() == 0.05
    assert (told.rate_limit.tokens.limit, told.rate_limit.tokens.remaining) == (1000, 700)
    only = receipt_message(Known(rate_limit=RateLimitState(BucketState(20, 19, 0.05), None)))
    assert not only.rate_limit.HasField("tokens")


def test_what_was_not_reached_is_left_out() -> None:
    assert receipt_message(Known("id-1", 10.0)) == Receipt(request_id="id-1")


async def test_a_call_refused_before_the_pipeline_is_written_down() -> None:
    SEEN.statuses.clear()
    made, pipeline = service()
    with pytest.raises(CallFailed):
        await made.generate(raw(b"{"), surrounded())
    with pytest.raises(CallFailed):
        await made.generate(raw(path="/metrics"), surrounded())
    made.guard.draining = True
    with pytest.raises(CallFailed):
        await made.generate(raw(), surrounded())
    assert SEEN.statuses == [400, 404, 503]
    assert not pipeline.calls


async def test_a_question_that_fails_is_no_failed_call() -> None:
    SEEN.statuses.clear()
    made, _ = service()
    admin = around(made, cast("Explainer", object())).admin
    for question in (
        admin.explain(ExplainRequest(call=call_pb2.Call(raw=RawCall(path=CHAT, body=b"{"))), surrounded()),
        admin.list_recent_calls(ListRecentCallsRequest(page_size=-1), surrounded()),
        admin.reload(ReloadRequest(), surrounded()),
    ):
        with pytest.raises(CallFailed):
            await question
    assert SEEN.statuses == []


# -- the end


@jumping
async def test_a_drain_waits_for_calls_and_has_an_end() -> None:
    made, pipeline = service(5.0, Reply(JSON_HEAD, ANSWER))
    assert await made.guard.idle(0.0), "nothing is under way"
    call = asyncio.create_task(made.generate(raw(), surrounded()))
    await settle(lambda: bool(pipeline.calls))
    assert made.guard.active == 1
    assert not await made.guard.idle(1.0)
    assert await made.guard.idle(10.0)
    assert (await call).raw.body == ANSWER
    assert made.guard.active == 0


@jumping
async def test_what_is_left_at_the_end_is_told_why() -> None:
    made, pipeline = service(1000.0)
    calls = [asyncio.create_task(made.generate(raw(), surrounded())) for _ in range(3)]
    await settle(lambda: len(pipeline.calls) == 3)
    left = calls.pop()
    made.guard.abort()
    made.guard.abort()
    left.cancel()
    for call in calls:
        with pytest.raises(CallFailed) as ended:
            await call
        assert detail(ended.value, ErrorInfo).reason == "DRAINING"
        assert detail(ended.value, RetryInfo).retry_delay.seconds == 1
    with pytest.raises(asyncio.CancelledError):
        await left  # its client left at the same moment
    assert await made.guard.idle(0.0)


@jumping
@pytest.mark.parametrize("end", ["a drain", "a bug"])
async def test_a_write_under_way_comes_to_its_end_before_an_error(end: str) -> None:
    made, _ = service(HEAD, Frames(EVENT), 5.0, RuntimeError("never seen before") if end == "a bug" else 1000.0)
    done = False

    async def send(message: StreamResponse) -> None:
        nonlocal done
        await asyncio.sleep(10.0)
        done = True

    request = StreamRequest(call=call_pb2.Call(raw=RawCall(path=CHAT, body=STREAM_BODY)))
    call = asyncio.create_task(made.stream(request, surrounded(), send))
    await asyncio.sleep(7.0)
    if end == "a drain":
        made.guard.abort()
    with pytest.raises(CallFailed) as ended, structlog.testing.capture_logs():
        await call
    assert detail(ended.value, ErrorInfo).reason == {"a drain": "DRAINING", "a bug": "INTERNAL"}[end]
    assert done, "grpc sends no status after a write that was cancelled"
