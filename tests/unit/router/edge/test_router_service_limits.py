"""Limits of what never becomes a call: a malformed request is a request, and every answer says where its user stands."""

from collections.abc import Awaitable
from dataclasses import replace
from typing import Any

import pytest
from google.rpc.error_details_pb2 import ErrorInfo
from tests.support.clock import jumping, now
from tests.unit.router.edge.test_router_service import ANSWER, JSON_HEAD, detail, raw, service, surrounded

from lexora.v1 import call_pb2
from lexora.v1.chat_pb2 import ChatRequest
from lexora.v1.classify_pb2 import ClassifyRequest
from lexora.v1.completion_pb2 import CompletionRequest
from lexora.v1.embed_pb2 import EmbedRequest
from lexora.v1.options_pb2 import CallOptions
from lexora.v1.receipt_pb2 import Receipt
from lexora.v1.router_pb2 import GenerateRequest, StreamRequest, StreamResponse
from lexora_contract.answer import BucketState, RateLimitState, Reply
from lexora_contract.port import CallFailed
from lexora_router.call import Call
from lexora_router.edge.router_service import RouterService
from lexora_router.layers.rate_limit import Meter
from lexora_router.policy.rate_limiter import RateLimiter
from lexora_router.policy.rate_limits import LimitRules, RateLimits


def metered(*, draining: bool = False) -> RouterService:
    """Two requests and 600 tokens for everybody."""
    limits = RateLimiter(LimitRules(RateLimits(1e-6, 2, 600)), now())
    made, _ = service(Reply(JSON_HEAD, ANSWER), meter=Meter(limits, lambda _: "", lambda _: 1, lambda _: 1, now))
    made.guard.draining = draining
    return made


async def stands(answer: Awaitable[Any]) -> tuple[str, int, int]:
    """Reason of a refusal, and what its receipt says is left."""
    with pytest.raises(CallFailed) as raised:
        await answer
    state = detail(raised.value, Receipt).rate_limit
    return detail(raised.value, ErrorInfo).reason, state.requests.remaining, state.tokens.remaining


async def nowhere(_: StreamResponse) -> None:
    raise AssertionError("nothing is sent")


ALICE_S = [
    raw(b"{", user="alice"),
    raw(b'{"user":"alice","model":7}'),
    raw(b'{"user":"alice","model":"m"}'),
    raw(b'{"model":"m","messages":{},"user":"alice","n":"x"}'),
    raw(b'{"user":"alice"}', path="/health"),
    raw(b'{"user":"alice","x":"' + b"x" * 10_000 + b'"}'),
    raw(priority=101, body=b'{"user":"alice"}'),
    GenerateRequest(call=call_pb2.Call(options=CallOptions(user="alice"))),
    GenerateRequest(
        call=call_pb2.Call(chat=ChatRequest(model="m", extra_json='{"user":"alice"}'), options=CallOptions(priority=101))
    ),
    GenerateRequest(
        call=call_pb2.Call(completion=CompletionRequest(model="m", extra_json='{"user":"alice","n":"x"}', text="a"))
    ),
]


@pytest.mark.parametrize("request_", ALICE_S, ids=range(len(ALICE_S)))
@jumping
async def test_a_malformed_request_is_a_request_of_its_user(request_: GenerateRequest) -> None:
    made = metered()
    reasons = [await stands(made.generate(request_, surrounded())) for _ in range(3)]
    assert [left for _, left, _ in reasons] == [1, 0, 0]
    assert {tokens for *_, tokens in reasons} == {600}
    assert reasons[0][0] == reasons[1][0] in ("INVALID_REQUEST", "NOT_FOUND", "REQUEST_TOO_LARGE")
    assert reasons[2][0] == "RATE_LIMITED"
    assert await stands(made.generate(raw(b"{"), surrounded())) == ("INVALID_REQUEST", 1, 600)  # somebody else's


@jumping
async def test_whoever_cannot_be_told_is_anonymous() -> None:
    made = metered()
    bodies = [b'{"user":"alice"', b'{"user":"\xff"}', b"[" * 5000]
    reasons = [await stands(made.generate(raw(body), surrounded())) for body in bodies]
    assert reasons == [("INVALID_REQUEST", 1, 600), ("INVALID_REQUEST", 0, 600), ("RATE_LIMITED", 0, 600)]
    assert await stands(made.generate(raw(b"{", user="alice"), surrounded())) == ("INVALID_REQUEST", 1, 600)


@jumping
async def test_every_rpc_is_limited_where_it_is_refused() -> None:
    made = metered()
    asked = CallOptions(user="alice", priority=101)
    ways = [
        made.stream(StreamRequest(call=call_pb2.Call(options=asked)), surrounded(), nowhere),
        made.embed(EmbedRequest(options=asked), surrounded()),
        made.classify(ClassifyRequest(options=CallOptions(user="alice")), surrounded()),
    ]
    assert [await stands(way) for way in ways] == [
        ("INVALID_REQUEST", 1, 600),
        ("INVALID_REQUEST", 0, 600),
        ("RATE_LIMITED", 0, 600),
    ]


@jumping
async def test_a_router_that_drains_shows_where_a_user_stands_and_charges_nothing() -> None:
    made = metered()
    await stands(made.generate(raw(b"{", user="alice"), surrounded()))
    made.guard.draining = True
    alice = raw(b'{"user":"alice","model":"m","messages":[]}')
    for _ in range(3):
        assert await stands(made.generate(alice, surrounded())) == ("DRAINING", 1, 600)
        assert await stands(made.generate(raw(), surrounded())) == ("DRAINING", 2, 600)


@jumping
async def test_a_bug_tells_where_the_user_stands() -> None:
    made, _ = service()

    async def broken(call: Call, _: Any) -> None:
        call.receipt.rate_limit = RateLimitState(BucketState(20, 19, 0.05), None)
        raise ZeroDivisionError

    made.guard.serving = replace(made.guard.serving, pipeline=broken)
    assert await stands(made.generate(raw(), surrounded())) == ("INTERNAL", 19, 0)
