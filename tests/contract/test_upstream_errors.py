"""The engine refuses, fails or answers nonsense before its answer has begun."""

from collections.abc import Callable
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc import code_pb2
from google.rpc.error_details_pb2 import ErrorInfo, RetryInfo

from lexora.v1 import errors_pb2, raw_pb2, receipt_pb2, stats_pb2
from lexora.v1.router_pb2_grpc import RouterServiceStub
from lexora_contract.plain import stats_plain
from lexora_router.process.app import RouterApp
from tests.contract.messages import FORMS, ID, STREAM_FORMS, failing, receipt, streamed, unary
from tests.support.links import Link, Outcome, channel, status_in
from tests.support.loop_engine import LoopEngine
from tests.support.raw_server import reply, stream

ERROR = b'{"error":{"message":"No \xe3\x81\x82.","type":"BadRequestError","param":null,"code":400}}'
MESSAGE = "No あ."


@pytest.fixture(params=[f"{rpc} {form}" for rpc in ("generate", "stream") for form in FORMS])
def call(link: Link, request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Calls Generate or Stream in one of the three forms."""
    rpc, form = request.param.split()

    async def run(**context: Any) -> Outcome:
        if rpc == "generate":
            return await link.generate(unary(**FORMS[form]), **context)
        return await link.stream(streamed(**STREAM_FORMS[form]), **context)

    return run


def check(
    outcome: Outcome, url: str, code: int, reason: str, text: str, *, retry: RetryInfo | None = None, attempts: int = 1
) -> None:
    """A status with this code and reason, with the receipt, this hint, and with `text` in its message."""
    assert outcome.messages == []
    assert outcome.failure.code == code
    assert text in outcome.failure.message
    info = ErrorInfo(reason=reason, domain="lexora.spirrow", metadata={"request_id": ID, "backend": "main"})
    assert outcome.detail(ErrorInfo) == info
    assert outcome.detail(receipt_pb2.Receipt) == receipt(url, attempts=attempts)
    assert outcome.detail(RetryInfo) == retry


REFUSALS = {
    "400 Bad Request": code_pb2.INVALID_ARGUMENT,
    "401 Unauthorized": code_pb2.UNAUTHENTICATED,
    "404 Not Found": code_pb2.NOT_FOUND,
    "422 Unprocessable Entity": code_pb2.INVALID_ARGUMENT,
    "429 Too Many Requests": code_pb2.RESOURCE_EXHAUSTED,
    "418 Teapot": code_pb2.FAILED_PRECONDITION,
    "500 Internal Server Error": code_pb2.UNAVAILABLE,
    "503 Service Unavailable": code_pb2.UNAVAILABLE,
}


@pytest.mark.parametrize("status", REFUSALS)
async def test_the_engines_own_error(call: Callable[..., Any], engine: LoopEngine, status: str) -> None:
    headers = "retry-after: 7\r\nx-ratelimit-limit-requests: 5\r\nserver: uvicorn\r\n"
    engine.answer(failing(status, ERROR, headers))
    outcome = await call()
    number = int(status.split(maxsplit=1)[0])
    text = f"the engine answered {number}: {MESSAGE}"
    retry = RetryInfo(retry_delay=Duration(seconds=7)) if number in (429, 503) else None
    check(outcome, engine.url, REFUSALS[status], "UPSTREAM_ERROR", text, retry=retry)
    assert outcome.upstream == errors_pb2.UpstreamError(
        status=number,
        content_type="application/json",
        body=ERROR,
        headers=[
            raw_pb2.Header(name="retry-after", value="7"),
            raw_pb2.Header(name="x-ratelimit-limit-requests", value="5"),
        ],
    )
    assert len(outcome.failure.details) == 3 + (retry is not None)
    assert len(engine.requests) == 1


@pytest.mark.parametrize("length", [9_000, 500_000])
async def test_a_long_error_arrives_whole(call: Callable[..., Any], engine: LoopEngine, length: int) -> None:
    body = b'{"error":{"message":"%b"}}' % (b"\xe3\x81\x82" * (length // 3))
    engine.answer(failing("400 Bad Request", body, f"x-long: {'h' * 30_000}\r\n"))
    outcome = await call()
    assert outcome.failure.code == code_pb2.INVALID_ARGUMENT
    assert outcome.upstream.body == body
    assert not outcome.upstream.truncated
    assert [(header.name, len(header.value)) for header in outcome.upstream.headers] == [("x-long", 30_000)]
    assert len(outcome.failure.message) < 1000


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize(("wish", "carried"), [("", 3072), ("1000", 1000), ("-1", 3072)])
async def test_a_stock_channel_gets_as_much_as_fits(
    router: tuple[RouterApp, str], engine: LoopEngine, streaming: bool, wish: str, carried: int
) -> None:
    """Clients take 8 KiB of metadata unless they say otherwise."""
    metadata = (("x-lexora-error-bytes", wish),) if wish else ()
    body = b'{"error":{"message":"%b"}}' % (b"\xe3\x81\x82" * 40_000)
    headers = f"x-long: {'h' * 30_000}\r\nx-ratelimit-reset-tokens: 6m\r\nretry-after: 7\r\n"
    engine.answer(failing("429 Too Many Requests", body, headers))
    async with channel(router[1]) as wire:
        stub = RouterServiceStub(wire)
        call: Any = (
            stub.Stream(streamed(**STREAM_FORMS["chat"]), metadata=metadata)
            if streaming
            else stub.Generate(unary(**FORMS["chat"]), metadata=metadata)
        )
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await (call.read() if streaming else call)
        size = sum(len(name) + len(value) + 32 for name, value in raised.value.trailing_metadata() or ())
    outcome = Outcome(status=status_in(raised.value))
    assert raised.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert outcome.reason == "UPSTREAM_ERROR"
    assert outcome.upstream.truncated
    assert outcome.upstream.body == body[:carried]
    assert [header.name for header in outcome.upstream.headers] == ["x-ratelimit-reset-tokens", "retry-after"]
    # Some clients count base64, a third longer, and the message percent-encoded.
    assert size * 4 / 3 + 3 * len(outcome.failure.message.encode()) < 8192


async def test_nobody_listens(call: Callable[..., Any], engine: LoopEngine) -> None:
    await engine.until(lambda: not engine.busy)
    await engine.die()
    outcome = await call()
    while "cannot connect" not in outcome.failure.message:  # kept connections break first
        outcome = await call()
    check(outcome, engine.url, code_pb2.UNAVAILABLE, "UPSTREAM_UNREACHABLE", "cannot connect")
    await engine.listen()


@pytest.mark.parametrize("form", ["chat", "completion"])
async def test_a_whole_answer_where_a_stream_was_asked_for(link: Link, engine: LoopEngine, form: str) -> None:
    engine.answer(reply(b'{"id":"c1","choices":[]}'))
    outcome = await link.stream(streamed(**STREAM_FORMS[form]))
    assert (outcome.failure.code, outcome.reason) == (code_pb2.UNAVAILABLE, "UPSTREAM_INVALID")
    assert outcome.messages == []


@pytest.mark.parametrize("form", FORMS)
async def test_a_stream_where_a_whole_answer_was_asked_for(link: Link, engine: LoopEngine, form: str) -> None:
    engine.answer(stream(b"data: {}\n\n"))
    outcome = await link.generate(unary(**FORMS[form]))
    assert (outcome.failure.code, outcome.reason) == (code_pb2.UNAVAILABLE, "UPSTREAM_INVALID")


@pytest.mark.parametrize("form", ["chat", "completion"])
@pytest.mark.parametrize("body", [b"[]", b'{"choices":7}', b'{"choices":[{"index":1e99}]}'])
async def test_json_that_is_no_answer(link: Link, engine: LoopEngine, form: str, body: bytes) -> None:
    engine.answer(reply(body))
    outcome = await link.generate(unary(**FORMS[form]))
    assert (outcome.failure.code, outcome.reason) == (code_pb2.UNAVAILABLE, "UPSTREAM_INVALID")
    stats = (await link.ask("get_stats", stats_pb2.GetStatsRequest())).only
    assert (stats.calls.successful, stats_plain(stats)["errors_by_type"]) == (0, {"UPSTREAM_INVALID": 1}), (
        "it counts as a failure"
    )
