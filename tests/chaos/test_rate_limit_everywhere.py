"""Every way in is limited, everybody has the limits that are meant for them, and every answer says where its client stands."""

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import aiohttp
import grpc
import httpx
import pytest
from google.rpc import error_details_pb2

from lexora.v1 import call_pb2, chat_pb2, completion_pb2, embed_pb2, router_pb2
from lexora.v1.options_pb2 import CallOptions
from lexora.v1.raw_pb2 import RawCall
from lexora.v1.sampling_pb2 import SamplingParams
from tests.support import load, wire
from tests.support.links import status_in, trailers
from tests.support.load import Client, chat
from tests.support.queueing import CHAT, MODEL, chats, grpc_stub, slots_held
from tests.support.servers import Gateway, Simulator, base_config
from tests.unit.docs.pages import code, page

EMBEDDER = "embedder"
BURST = 2
# Slow enough for nothing to come back during a test.
RATE = 0.01
TOKENS_PER_MINUTE = 100_000
TEXTS = {"model": EMBEDDER, "input": "a text"}
PAIR = {"model": EMBEDDER, "query": "a", "documents": ["b", "c"]}
SCORE = {"model": EMBEDDER, "text_1": "a", "text_2": "b"}
BODIES: dict[str, dict[str, Any]] = {
    CHAT: chat(MODEL, 1),
    "/v1/completions": {"model": MODEL, "prompt": "a", "max_tokens": 1},
    "/v1/embeddings": TEXTS,
    "/v1/responses": {"model": MODEL, "input": "a", "max_output_tokens": 1},
    "/v1/messages": {"model": MODEL, "messages": [{"role": "user", "content": "a"}], "max_tokens": 1},
    "/v1/messages/count_tokens": {"model": MODEL, "messages": [{"role": "user", "content": "a"}]},
    f"{CHAT}/render": {"model": MODEL, "messages": [{"role": "user", "content": "a"}]},
    "/v1/completions/render": {"model": MODEL, "prompt": "a"},
    "/v2/embed": {"model": EMBEDDER, "texts": ["a"], "input_type": "search_query", "embedding_types": ["float"]},
    "/v2/rerank": PAIR,
    "/v1/rerank": PAIR,
    "/rerank": PAIR,
    "/v1/score": SCORE,
    "/score": SCORE,
    "/pooling": TEXTS,
    "/classify": TEXTS,
    "/tokenize": {"model": MODEL, "prompt": "a"},
    "/detokenize": {"model": MODEL, "tokens": [1, 2]},
    "/generate": {"model": MODEL, "prompt": "a", "max_tokens": 1},
    "/chat": {"model": MODEL, "message": "a", "max_tokens": 1},
}
STREAMS = {path: BODIES[path] | {"stream": True} for path in (CHAT, "/v1/completions", "/generate", "/chat")}
AUDIO = ("/v1/audio/transcriptions", "/v1/audio/translations")
CLASSIFY = "/v1/classify-task"
STORED_RESPONSES = [
    ("GET", "/v1/responses/{response_id}"),
    ("GET", "/v1/responses/{response_id}/input_items"),
    ("DELETE", "/v1/responses/{response_id}"),
    ("POST", "/v1/responses/{response_id}/cancel"),
]


@pytest.fixture(scope="module")
def sim() -> Iterator[Simulator]:
    with Simulator("--itl-ms", "1", "--embedding-model", EMBEDDER, model=MODEL) as simulator:
        yield simulator


@pytest.fixture(autouse=True)
def clean(sim: Simulator) -> None:
    sim.clear()


@pytest.fixture(scope="module")
def gateway(sim: Simulator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    main = {"url": sim.url, "models": [MODEL, EMBEDDER], "max_concurrency": 4, "queue": {"max_size": 0}}
    limits = {
        "default_rate": RATE,
        "default_burst": BURST,
        "tokens_per_minute": TOKENS_PER_MINUTE,
        "tiers": {"gold": {"burst": 5}},
        "users": {
            "alice": {"burst": 7},
            "bob": {"tier": "gold"},
            "carol": {"tier": "gold", "burst": 3},
            "busy": {"burst": 50},
            "holder": {"burst": 50},
        },
    }
    config = base_config(main=main) | {"rate_limit": limits | {"enabled": True}, "tenants": {"dave": {"tier": "gold"}}}
    del config["routing"]["default_backend"]  # so that there are models that nobody serves
    with Gateway(config | {"retry": {"max_retries": 0}}, tmp_path_factory.mktemp("gateway")) as process:
        yield process


def check_headers(headers: Any, *, left: int, burst: int = BURST) -> None:
    """All six headers, with so many requests left."""
    assert headers["x-ratelimit-limit-requests"] == str(burst)
    assert headers["x-ratelimit-remaining-requests"] == str(left)
    assert headers["x-ratelimit-reset-requests"] != "0s"
    assert headers["x-ratelimit-limit-tokens"] == str(TOKENS_PER_MINUTE)
    assert 0 < int(headers["x-ratelimit-remaining-tokens"]) <= TOKENS_PER_MINUTE
    assert headers["x-ratelimit-reset-tokens"]


async def check_limited(sim: Simulator, one: Client, path: str, body: Any) -> None:
    """So many calls as the burst has are answered; the next one is not, and no engine hears of it."""
    for turn in range(BURST):
        answer = await one.post(path, body())
        assert answer.status == 200, (path, answer.body)
        check_headers(answer.headers, left=BURST - turn - 1)
    before = sim.stats()["requests"]
    answer = await one.post(path, body())
    assert (answer.status, answer.error["type"]) == (429, "rate_limit_error"), path
    assert answer.error.get("code") == (None if path.startswith("/v1/messages") else "rate_limited")  # Anthropic has no codes
    check_headers(answer.headers, left=0)
    assert 90 <= int(answer.headers["retry-after"]) <= 100
    assert sim.stats()["requests"] == before


@pytest.mark.parametrize("path", BODIES)
async def test_every_endpoint_is_limited(sim: Simulator, gateway: Gateway, path: str) -> None:
    async with load.client(gateway.http) as one:
        await check_limited(sim, one, path, lambda: BODIES[path] | {"user": f"user-of-{path}"})


@pytest.mark.parametrize("path", STREAMS)
async def test_every_stream_is_limited(sim: Simulator, gateway: Gateway, path: str) -> None:
    async with load.client(gateway.http) as one:
        await check_limited(sim, one, path, lambda: STREAMS[path] | {"user": f"streams-{path}"})


@pytest.mark.parametrize("path", AUDIO)
async def test_every_form_is_limited(sim: Simulator, gateway: Gateway, path: str) -> None:
    def form() -> aiohttp.FormData:
        data = aiohttp.FormData({"model": MODEL, "user": f"user-of-{path}"})
        data.add_field("file", b"RIFF0000WAVE", filename="a.wav", content_type="audio/wav")
        return data

    async with load.client(gateway.http) as one:
        await check_limited(sim, one, path, form)


@pytest.mark.parametrize(("method", "path"), STORED_RESPONSES)
def test_every_question_about_a_stored_response_is_limited(sim: Simulator, gateway: Gateway, method: str, path: str) -> None:
    def ask() -> httpx.Response:
        url = f"{gateway.http}{path.format(response_id='resp_unknown')}"
        return httpx.request(method, url, headers={"x-lexora-user": f"{method} {path}"})

    def asked_of_the_engine() -> dict[str, int]:
        return {each: count for each, count in sim.stats()["by_path"].items() if each.startswith("/v1/responses/")}

    for turn in range(BURST):
        answer = ask()
        assert answer.status_code == 404
        check_headers(answer.headers, left=BURST - turn - 1)
    before = asked_of_the_engine()
    assert sum(before.values()) == BURST
    answer = ask()
    assert (answer.status_code, answer.json()["error"]["code"]) == (429, "rate_limited")
    check_headers(answer.headers, left=0)
    assert asked_of_the_engine() == before


def test_no_endpoint_is_missing_here() -> None:
    rows = page("docs/api.md").table("method", "path", "what")
    served = [(method, path) for method, paths, _ in rows for path in code(paths)]
    posts = [path for method, path in served if method == "POST"]
    stored = [(method, path) for method, path in served if path.startswith("/v1/responses/")]
    cancel = "/v1/responses/{response_id}/cancel"
    assert sorted(posts) == sorted((*BODIES, *AUDIO, CLASSIFY, cancel))
    assert sorted(stored) == sorted(STORED_RESPONSES)


@pytest.mark.parametrize("path", [*BODIES, *AUDIO, CLASSIFY])
async def test_malformed_requests_are_limited_everywhere(sim: Simulator, gateway: Gateway, path: str) -> None:
    body = {"user": f"wrong-{path}", "model": 5}
    async with load.client(gateway.http) as one:
        answers = [await one.post(path, body) for _ in range(BURST + 1)]
    assert [answer.status for answer in answers] == [400] * BURST + [429]
    for turn, answer in enumerate(answers):
        check_headers(answer.headers, left=max(BURST - turn - 1, 0))
        assert answer.headers["x-ratelimit-remaining-tokens"] == str(TOKENS_PER_MINUTE), "these cost no tokens"
    assert sim.stats()["requests"] == 0


@pytest.mark.parametrize(
    ("path", "body", "status", "code"),
    [
        (CHAT, chat("no such model", 1), 404, "model_not_found"),
        ("/v1/embeddings", {"model": "no such model", "input": "a"}, 404, "model_not_found"),
        ("/chat", {"model": "no such model", "message": "a"}, 404, "model_not_found"),
        (CLASSIFY, {"task_description": "a"}, 503, "classifier_disabled"),
    ],
)
async def test_answers_without_an_engine_are_limited(
    gateway: Gateway, path: str, body: dict[str, Any], status: int, code: str
) -> None:
    async with load.client(gateway.http) as one:
        answers = [await one.post(path, body | {"user": f"lost-{path}"}) for _ in range(BURST + 1)]
    assert [answer.status for answer in answers] == [status] * BURST + [429]
    assert answers[0].error["code"] == code
    for turn, answer in enumerate(answers):
        check_headers(answer.headers, left=max(BURST - turn - 1, 0))


def options(user: str) -> CallOptions:
    return CallOptions(user=user)


def typed(stub: Any, way: str, user: str) -> Any:
    """A call by gRPC in one of its forms."""
    sampling = SamplingParams(max_tokens=1)
    messages = [chat_pb2.ChatMessage(role=chat_pb2.ROLE_USER, text="a")]
    talk = chat_pb2.ChatRequest(model=MODEL, messages=messages, sampling=sampling)
    match way:
        case "chat":
            return stub.Generate(router_pb2.GenerateRequest(call=call_pb2.Call(options=options(user), chat=talk)))
        case "completion":
            completion = completion_pb2.CompletionRequest(model=MODEL, text="a", sampling=sampling)
            return stub.Generate(router_pb2.GenerateRequest(call=call_pb2.Call(options=options(user), completion=completion)))
        case "raw":
            call = RawCall(path=CHAT, body=json.dumps(chat(MODEL, 1, user=user)).encode())
            return stub.Generate(router_pb2.GenerateRequest(call=call_pb2.Call(raw=call)))
        case "embed":
            return stub.Embed(embed_pb2.EmbedRequest(options=options(user), model=EMBEDDER, texts={"values": ["a"]}))
    return _last(stub.Stream(router_pb2.StreamRequest(call=call_pb2.Call(options=options(user), chat=talk))))


async def test_trailing_metadata_says_it_too(gateway: Gateway) -> None:
    def talk(model: str, **more: Any) -> router_pb2.GenerateRequest:
        call = RawCall(path=CHAT, body=json.dumps(chat(model, 1, **more)).encode())
        return router_pb2.GenerateRequest(call=call_pb2.Call(options=options("trailing"), raw=call))

    found = []
    async with grpc_stub(gateway) as stub:
        for request in (talk(MODEL), talk("no such model"), talk(MODEL)):
            call = stub.Generate(request)
            await asyncio.wait([asyncio.ensure_future(call.code())])
            found.append((await call.code(), trailers(await call.trailing_metadata())))
        malformed = stub.Stream(router_pb2.StreamRequest(call=call_pb2.Call(options=options("trailing-stream"))))
        found.append((await malformed.code(), trailers(await malformed.trailing_metadata())))
        streamed = stub.Stream(
            router_pb2.StreamRequest(call=call_pb2.Call(options=options("trailing-stream"), raw=talk(MODEL).call.raw))
        )
        assert [message async for message in streamed]
        found.append((await streamed.code(), trailers(await streamed.trailing_metadata())))
    codes = [grpc.StatusCode[name] for name in ["OK", "NOT_FOUND", "RESOURCE_EXHAUSTED", "INVALID_ARGUMENT", "OK"]]
    assert [code for code, _ in found] == codes
    for (_, metadata), left in zip(found, (1, 0, 0, 1, 0), strict=True):
        check_headers(metadata, left=left)


async def _last(stream: Any) -> Any:
    return [message async for message in stream][-1].completed


@pytest.mark.parametrize("way", ["chat", "completion", "raw", "embed", "stream"])
async def test_every_rpc_is_limited(gateway: Gateway, way: str) -> None:
    user = f"grpc-{way}"
    async with grpc_stub(gateway) as stub:
        for turn in range(BURST):
            receipt = (await typed(stub, way, user)).receipt
            assert (receipt.rate_limit.requests.limit, receipt.rate_limit.requests.remaining) == (BURST, BURST - turn - 1)
            assert receipt.rate_limit.tokens.limit == TOKENS_PER_MINUTE
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await typed(stub, way, user)
    error = caught.value
    info, quota, retry = error_details_pb2.ErrorInfo(), error_details_pb2.QuotaFailure(), error_details_pb2.RetryInfo()
    for detail in status_in(error).details:
        for kind in (info, quota, retry):
            detail.Unpack(kind)
    assert (error.code(), info.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "RATE_LIMITED")
    assert [violation.subject for violation in quota.violations] == [f"user:{user}"]
    assert 90 <= retry.retry_delay.seconds <= 100
    pushback = int(trailers(error.trailing_metadata())["grpc-retry-pushback-ms"])
    assert pushback == pytest.approx(retry.retry_delay.ToMilliseconds(), abs=1)


@pytest.mark.parametrize(("user", "burst"), [("alice", 7), ("bob", 5), ("carol", 3), ("dave", 5), ("erin", BURST)])
async def test_users_and_tiers_have_their_own_limits(gateway: Gateway, user: str, burst: int) -> None:
    async with load.client(gateway.http) as one:
        answers = [await one.post(CHAT, chat(MODEL, 1, user=user)) for _ in range(burst + 1)]
    assert [answer.status for answer in answers] == [200] * burst + [429]
    for turn, answer in enumerate(answers):
        check_headers(answer.headers, left=max(burst - turn - 1, 0), burst=burst)


async def test_who_names_nobody_is_told_apart_by_address(gateway: Gateway) -> None:
    async with load.client(gateway.http) as one, load.client(gateway.http) as another, grpc_stub(gateway) as stub:
        assert (await one.post(CHAT, chat(MODEL, 1))).status == 200
        assert (await typed(stub, "chat", "")).receipt.rate_limit.requests.remaining == 0
        refused = await another.post("/v1/embeddings", TEXTS)
        assert (refused.status, refused.error["code"]) == (429, "rate_limited")
        assert "`anonymous@127.0.0.1`" in refused.error["message"]
        elsewhere = await another.post(CHAT, chat(MODEL, 1), x_forwarded_for="10.0.0.7")
        assert elsewhere.status == 200, "behind a proxy that is trusted another client has an account of its own"
        assert (await another.post(CHAT, chat(MODEL, 1, user="somebody"))).status == 200


async def test_answers_that_are_errors_say_it_too(sim: Simulator, gateway: Gateway) -> None:
    async with load.client(gateway.http) as one:
        bad = await one.post(CHAT, chat(MODEL, -1, user="busy"))
        broken = await one.post(CHAT, chat(MODEL, 1, user="busy", sim_fault="status;code=500"))
        async with slots_held(one, sim, 4):
            full = await one.post(CHAT, chat(MODEL, 1, user="busy"))
        await asyncio.to_thread(wire.wait_idle, gateway.http)
        late = await one.post(CHAT, chat(MODEL, 1, user="busy", sim_fault="hang"), x_request_timeout="0.2")
    assert [answer.status for answer in (bad, broken, full, late)] == [400, 500, 429, 504]
    assert full.error["code"] == "queue_full"
    for turn, answer in enumerate((bad, broken, full, late)):
        check_headers(answer.headers, left=50 - turn - 1, burst=50)


async def test_every_choice_is_reserved(gateway: Gateway) -> None:
    body = chat(MODEL, 1000, user="many", n=3, sim_fault="hang")
    async with load.client(gateway.http) as one:
        answer = await one.post(CHAT, body, x_request_timeout="0.2")
    assert answer.status == 504
    assert TOKENS_PER_MINUTE - 3100 < int(answer.headers["x-ratelimit-remaining-tokens"]) <= TOKENS_PER_MINUTE - 3000


@pytest.mark.parametrize("path", [CHAT, "/v1/completions", "/v1/responses", "/v1/messages"])
async def test_a_stream_that_is_left_early_costs_what_was_sent(sim: Simulator, gateway: Gateway, path: str) -> None:
    user, most = f"leaver-{path}", 30_000
    name = "max_output_tokens" if path == "/v1/responses" else "max_tokens"
    body = BODIES[path] | {name: most, "stream": True, "ignore_eos": True, "user": user}
    async with aiohttp.ClientSession(gateway.http) as session, session.post(path, json=body) as response:
        check_headers(response.headers, left=BURST - 1)
        assert int(response.headers["x-ratelimit-remaining-tokens"]) < TOKENS_PER_MINUTE - most, "all of it is reserved"
        events = 0
        while events < 20:
            events += (await response.content.readline()).startswith(b"data:")
    await asyncio.to_thread(wire.wait_idle, gateway.http)
    async with load.client(gateway.http) as one:
        left = int((await one.post("/tokenize", BODIES["/tokenize"] | {"user": user})).headers["x-ratelimit-remaining-tokens"])
    # The next call's own estimate is in it; what came back in these seconds, and what the client did not read, is not known.
    assert left > TOKENS_PER_MINUTE - most / 4
    assert left < TOKENS_PER_MINUTE


async def test_what_never_reaches_an_engine_costs_no_tokens(sim: Simulator, gateway: Gateway) -> None:
    """The reservation of a call that is refused further down comes back; only its request counts."""
    user = "unlucky"
    async with load.client(gateway.http) as one:
        async with slots_held(one, sim, 4):
            refused = await one.post(CHAT, chat(MODEL, 30_000, user=user))
        assert refused.status == 429
        await asyncio.to_thread(wire.wait_idle, gateway.http)
        answer = await one.post(CHAT, chat(MODEL, 1, user=user))
        assert int(answer.headers["x-ratelimit-remaining-tokens"]) > TOKENS_PER_MINUTE - 100
    assert len(chats(sim)) == 1
    await asyncio.to_thread(wire.wait_idle, gateway.http)
