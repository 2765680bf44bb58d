"""A thousand calls of every sort, through every way in: whole and streamed, good, broken, refused and left, and what each
client saw of its own.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import aiohttp
import grpc
import msgspec
from google.rpc.error_details_pb2 import ErrorInfo

from lexora.v1 import chat_pb2, common_pb2, completion_pb2, embed_pb2, router_pb2
from lexora.v1.openai_pb2 import OpenAiCall
from lexora.v1.router_pb2_grpc import RouterServiceStub
from tests.support.links import status_in
from tests.support.streams import session_to

MODEL, EMBEDDER = "qwen3-32b", "embedder"
NARROW = "narrow"  # two slots, two places in the queue
LOST = "lost"  # its engine is not there; another one answers
LIMITED = "limited"  # a user of five calls
CHAT, COMPLETIONS, EMBEDDINGS = "/v1/chat/completions", "/v1/completions", "/v1/embeddings"
RESPONSES, MESSAGES = "/v1/responses", "/v1/messages"
WORKERS = 40
TOKENS = 17
PATIENCE_SECONDS = 0.5
LONG = "The same words, again and again. " * 12
HELLO = [{"role": "user", "content": LONG}]
ASKS: dict[str, dict[str, Any]] = {
    CHAT: {"messages": HELLO, "max_tokens": TOKENS},
    COMPLETIONS: {"prompt": "昔々、ある所に", "max_tokens": TOKENS},
    EMBEDDINGS: {"input": ["a text", "another one"]},
    RESPONSES: {"input": LONG, "max_output_tokens": TOKENS},
    MESSAGES: {"messages": HELLO, "max_tokens": TOKENS},
    "/generate": {"prompt": LONG, "max_tokens": TOKENS},
    "/chat": {"message": LONG, "max_tokens": TOKENS},
}
WITH_USAGE = {"stream": True, "stream_options": {"include_usage": True}}
NEVER = {"x_lexora_resume": "never"}
FROZEN = {"stream": True, "return_token_ids": True, "ignore_eos": True, "sim_fault": "freeze_after=5"}
Counted = tuple[int, int, int]


@dataclass(slots=True)
class Seen:
    """What a client saw of its call: HTTP status or the error's name, and tokens in, out and cached; None where not told."""

    status: int | None = None
    error: str | None = None
    left: bool = False
    counted: Counted | None = None


@dataclass(frozen=True, slots=True)
class Kind:
    """Calls of one sort. `exact`: every token that the engines sent is accounted for."""

    name: str
    count: int
    call: Callable[["Clients", str], Awaitable[Seen]]
    exact: bool = True


@dataclass(slots=True)
class Clients:
    """Who makes the calls; `seen` by request id."""

    session: aiohttp.ClientSession
    stub: Any
    seen: dict[str, Seen] = field(default_factory=dict)

    async def post(self, name: str, path: str, body: Mapping[str, Any] | bytes, **headers: str) -> Seen:
        """One call over HTTP, read to its end."""
        data = body if isinstance(body, bytes) else msgspec.json.encode(body)
        sent = {"content-type": "application/json", "x-request-id": name} | _names(headers)
        async with self.session.post(path, data=data, headers=sent) as response:
            events = _events(await response.read())
        errors = [found.get("error", found) for found in events if "error" in found or found.get("type") == "error"]
        return Seen(response.status, _word(errors[-1]) if errors else None, counted=_counted(events))

    async def leave(self, name: str, path: str, body: Mapping[str, Any], after: int) -> Seen:
        """One call over HTTP, left after so many events; before the answer, after a while, with 0."""
        data, sent = msgspec.json.encode(body), {"content-type": "application/json", "x-request-id": name}
        try:
            async with asyncio.timeout(None if after else PATIENCE_SECONDS):
                async with self.session.post(path, data=data, headers=sent) as response:
                    events = 0
                    while events < after:
                        events += (await response.content.readline()).startswith(b"data:")
        except TimeoutError:
            assert not after
        return Seen(left=True)

    async def rpc(self, method: str, request: Any, **options: Any) -> Seen:
        """One unary call over gRPC."""
        try:
            answer = await getattr(self.stub, method)(request, **options)
        except grpc.aio.AioRpcError as error:
            return _refused(error)
        return Seen(200, counted=_of_message(answer.receipt.usage))

    async def rpc_stream(self, request: router_pb2.StreamRequest, after: int | None = None) -> Seen:
        """One streamed call over gRPC, left after so many events; before the answer, after a while, with 0."""
        call, events, counted = self.stub.Stream(request), 0, None
        try:
            async with asyncio.timeout(PATIENCE_SECONDS if after == 0 else None):
                while not after or events < after:
                    if (message := await call.read()) is grpc.aio.EOF:
                        break
                    events += message.frames.count(b"data:")
                    counted = _of_message(message.receipt.usage) if message.HasField("receipt") else counted
        except TimeoutError:
            assert after == 0
        except grpc.aio.AioRpcError as error:
            return _refused(error)
        if after is not None:
            call.cancel()
            return Seen(left=True)
        return Seen(200, counted=counted)


def _names(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in headers.items()}


def _word(error: dict[str, Any]) -> str:
    return str(error.get("code") or error.get("type"))


def _events(body: bytes) -> list[dict[str, Any]]:
    """The JSON objects of an answer, whole or streamed."""
    if body.startswith(b"{"):
        return [msgspec.json.decode(body)]
    lines = [line[6:] for line in body.split(b"\n") if line.startswith(b"data: {")]
    return [msgspec.json.decode(line) for line in lines]


def _counted(events: list[dict[str, Any]]) -> Counted | None:
    """Tokens in, out and cached, whatever the dialect: counts only grow."""
    found = list(chain.from_iterable(map(_usages, events)))
    if not found:
        return None
    cached = [(each.get("prompt_tokens_details") or each.get("input_tokens_details") or {}) for each in found]
    return (
        max(each.get("prompt_tokens") or each.get("input_tokens") or 0 for each in found),
        max(each.get("completion_tokens") or each.get("output_tokens") or 0 for each in found),
        max(each.get("cached_tokens") or 0 for each in cached),
    )


def _usages(event: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for holder in (event, event.get("response"), event.get("message")):
        if isinstance(holder, dict) and isinstance(holder.get("usage"), dict):
            yield holder["usage"]


def _of_message(usage: common_pb2.Usage) -> Counted:
    return usage.input_tokens, usage.output_tokens, usage.cached_tokens


def _refused(error: grpc.aio.AioRpcError) -> Seen:
    if error.code() is grpc.StatusCode.CANCELLED:
        return Seen(left=True)
    (info,) = [each for each in status_in(error).details if each.Is(ErrorInfo.DESCRIPTOR)]
    return Seen(error=ErrorInfo.FromString(info.value).reason)


# -- the mix


def http(name: str, count: int, path: str = CHAT, *, exact: bool = True, headers: Mapping[str, str] = {}, **body: Any) -> Kind:
    """Calls over HTTP that are read to their end."""
    asked = {"model": MODEL} | ASKS[path] | body
    return Kind(name, count, lambda clients, id_: clients.post(id_, path, asked, **headers), exact)


def raw(name: str, count: int, body: bytes, **headers: str) -> Kind:
    """Calls over HTTP of exactly these bytes."""
    return Kind(name, count, lambda clients, id_: clients.post(id_, CHAT, body, **headers))


def left(name: str, count: int, after: int, path: str = CHAT, *, exact: bool = True, **body: Any) -> Kind:
    """Calls over HTTP whose clients leave."""
    asked = {"model": MODEL} | ASKS[path] | body
    return Kind(name, count, lambda clients, id_: clients.leave(id_, path, asked, after), exact)


def _options(name: str) -> common_pb2.CallOptions:
    return common_pb2.CallOptions(request_id=name, user="by-grpc")


def generate(name: str, count: int, **given: Any) -> Kind:
    """Unary calls over gRPC."""
    return Kind(
        name,
        count,
        lambda clients, id_: clients.rpc("Generate", router_pb2.GenerateRequest(options=_options(id_), **given)),
    )


def stream(name: str, count: int, after: int | None = None, **given: Any) -> Kind:
    """Streamed calls over gRPC."""
    return Kind(
        name,
        count,
        lambda clients, id_: clients.rpc_stream(router_pb2.StreamRequest(options=_options(id_), **given), after),
    )


def embed(name: str, count: int) -> Kind:
    """Embeddings over gRPC."""

    def request(id_: str) -> embed_pb2.EmbedRequest:
        return embed_pb2.EmbedRequest(options=_options(id_), model=EMBEDDER, texts=["a text"])

    return Kind(name, count, lambda clients, id_: clients.rpc("Embed", request(id_)))


def openai(path: str, **body: Any) -> OpenAiCall:
    """A call in the wire-faithful form."""
    return OpenAiCall(path=path, body=msgspec.json.encode({"model": MODEL} | ASKS.get(path, {}) | body))


SAMPLING = common_pb2.SamplingParams(max_tokens=TOKENS)
TYPED = chat_pb2.ChatRequest(
    model=MODEL, sampling=SAMPLING, messages=[chat_pb2.ChatMessage(role=chat_pb2.ROLE_USER, text=LONG)]
)
TYPED_COMPLETION = completion_pb2.CompletionRequest(model=MODEL, sampling=SAMPLING, text=LONG)

# Those that take long come first.
SLOW = (
    http("silent", 3, sim_fault="hang"),
    http("out-of-time", 12, headers={"x_request_timeout": "0.4"}, sim_fault="hang"),
    http("queued", 40, model=NARROW, sim_fault="drip=15", user="queuer"),
    left("left-early", 20, 0, sim_fault="hang"),
    left("left-midway", 20, 6, **FROZEN),
    left("left-midway-text", 10, 5, COMPLETIONS, **FROZEN),
    left("left-while-it-ran", 15, 5, exact=False, stream=True, max_tokens=3000, ignore_eos=True, sim_fault="drip=2"),
    stream("grpc-left-early", 5, 0, openai=openai(CHAT, stream=True, sim_fault="hang")),
    stream("grpc-left-midway", 5, 6, openai=openai(CHAT, **FROZEN)),
)
OTHERS = (
    http("chat", 140),
    http("chat-stream", 150, **WITH_USAGE, user="streamer"),
    http("chat-stream-uncounted", 50, stream=True),
    http("stop-strings", 30, **WITH_USAGE, stop=["never in there at all"]),
    http("two-answers", 10, n=2),
    http("two-answers-stream", 10, exact=False, n=2, **WITH_USAGE),
    http("completion", 50, COMPLETIONS),
    http("completion-stream", 50, COMPLETIONS, **WITH_USAGE),
    http("embedding", 30, EMBEDDINGS, model=EMBEDDER, user="embedding"),
    http("responses", 15, RESPONSES),
    http("responses-stream", 15, RESPONSES, stream=True),
    http("messages", 15, MESSAGES),
    http("messages-stream", 15, MESSAGES, stream=True),
    http("short-form", 10, "/generate"),
    http("short-form-stream", 10, "/chat", stream=True),
    generate("grpc-chat", 25, chat=TYPED),
    generate("grpc-completion", 15, completion=TYPED_COMPLETION),
    generate("grpc-openai", 15, openai=openai(CHAT)),
    stream("grpc-chat-stream", 25, chat=TYPED),
    stream("grpc-openai-stream", 15, openai=openai(CHAT, stream=True)),
    embed("grpc-embedding", 15),
    generate("grpc-nothing", 4),
    generate("grpc-wrong-path", 4, openai=openai("/v1/nowhere")),
    http("status-500", 10, sim_fault="status;code=500"),
    http("status-503", 8, sim_fault="status;code=503"),
    http("status-429", 8, sim_fault="status;code=429;retry_after=0"),
    http("reset", 8, sim_fault="reset"),
    http("empty", 6, sim_fault="empty"),
    http("half-an-answer", 6, sim_fault="invalid_json"),
    http("a-page", 6, sim_fault="html"),
    http("broken-responses", 5, RESPONSES, stream=True, sim_fault="die_after=6;how=eof"),
    http("broken-messages", 5, MESSAGES, stream=True, sim_fault="die_after=6;how=error"),
    http("malformed-stream", 6, exact=False, stream=True, sim_fault="malformed=3"),
    http("broken-stream", 10, headers=NEVER, stream=True, return_token_ids=True, sim_fault="die_after=6;how=fin"),
    http("wrong", 10, temperature=-5),
    http("unknown", 15, model="made-up"),
    http("limited", 15, user=LIMITED),
    http("lost", 15, model=LOST),
    http("lost-stream", 10, model=LOST, **WITH_USAGE),
    raw("not-json", 6, b'{"model": '),
    raw("not-json-type", 6, b"text", content_type="text/plain"),
    raw("nothing", 3, b""),
)  # fmt: skip
KINDS = {kind.name: kind for kind in (*SLOW, *OTHERS)}
CALLS = sum(kind.count for kind in KINDS.values())


def kind_of(name: str) -> Kind:
    """The sort of the call with this request id."""
    return KINDS[name.rpartition("-")[0]]


async def make_all(http_url: str, grpc_address: str) -> dict[str, Seen]:
    """Make the calls, some dozens at a time; what each client saw, by request id."""
    waiting = [f"{kind.name}-{number}" for kind in SLOW for number in range(kind.count)]
    others = [f"{kind.name}-{number}" for kind in OTHERS for number in range(kind.count)]
    random.Random(5).shuffle(others)
    names = iter(waiting + others)
    async with session_to(http_url) as session, grpc.aio.insecure_channel(grpc_address) as channel:
        clients = Clients(session, RouterServiceStub(channel))

        async def work() -> None:
            for name in names:
                clients.seen[name] = await kind_of(name).call(clients, name)

        async with asyncio.timeout(60), asyncio.TaskGroup() as group:
            for _ in range(WORKERS):
                group.create_task(work())
    return clients.seen
