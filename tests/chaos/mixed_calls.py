"""A thousand calls of every sort, through every way in: whole and streamed, good, broken, refused and left, and what each
client saw of its own.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import grpc
import msgspec

from lexora.v1 import call_pb2, chat_pb2, completion_pb2, embed_pb2, options_pb2, router_pb2, sampling_pb2
from lexora.v1.raw_pb2 import RawCall
from lexora.v1.router_pb2_grpc import RouterServiceStub
from tests.chaos.mixed_clients import Clients, Seen
from tests.support.streams import session_to

MODEL, EMBEDDER = "qwen3-32b", "embedder"
NARROW = "narrow"  # two slots, two places in the queue
LOST = "lost"  # its engine is not there; another one answers
LIMITED = "limited"  # a user of five calls
CHAT, COMPLETIONS, EMBEDDINGS = "/v1/chat/completions", "/v1/completions", "/v1/embeddings"
RESPONSES, MESSAGES = "/v1/responses", "/v1/messages"
WORKERS = 40
TOKENS = 17
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


@dataclass(frozen=True, slots=True)
class Kind:
    """Calls of one sort. `exact`: every token that the engines sent is accounted for."""

    name: str
    count: int
    call: Callable[["Clients", str], Awaitable[Seen]]
    exact: bool = True


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


def _options(name: str) -> options_pb2.CallOptions:
    return options_pb2.CallOptions(request_id=name, user="by-grpc")


def generate(name: str, count: int, **given: Any) -> Kind:
    """Unary calls over gRPC."""
    return Kind(
        name,
        count,
        lambda clients, id_: clients.rpc(
            "Generate", router_pb2.GenerateRequest(call=call_pb2.Call(options=_options(id_), **given))
        ),
    )


def stream(name: str, count: int, after: int | None = None, **given: Any) -> Kind:
    """Streamed calls over gRPC."""
    return Kind(
        name,
        count,
        lambda clients, id_: clients.rpc_stream(
            router_pb2.StreamRequest(call=call_pb2.Call(options=_options(id_), **given)), after
        ),
    )


def embed(name: str, count: int) -> Kind:
    """Embeddings over gRPC."""

    def request(id_: str) -> embed_pb2.EmbedRequest:
        return embed_pb2.EmbedRequest(options=_options(id_), model=EMBEDDER, texts={"values": ["a text"]})

    return Kind(name, count, lambda clients, id_: clients.rpc("Embed", request(id_)))


def raw_call(path: str, **body: Any) -> RawCall:
    """A call in the wire-faithful form."""
    return RawCall(path=path, body=msgspec.json.encode({"model": MODEL} | ASKS.get(path, {}) | body))


SAMPLING = sampling_pb2.SamplingParams(max_tokens=TOKENS)
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
    stream("grpc-left-early", 5, 0, raw=raw_call(CHAT, stream=True, sim_fault="hang")),
    stream("grpc-left-midway", 5, 6, raw=raw_call(CHAT, **FROZEN)),
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
    generate("grpc-raw", 15, raw=raw_call(CHAT)),
    stream("grpc-chat-stream", 25, chat=TYPED),
    stream("grpc-raw-stream", 15, raw=raw_call(CHAT, stream=True)),
    embed("grpc-embedding", 15),
    generate("grpc-nothing", 4),
    generate("grpc-wrong-path", 4, raw=raw_call("/v1/nowhere")),
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

        async with asyncio.timeout(120), asyncio.TaskGroup() as group:
            for _ in range(WORKERS):
                group.create_task(work())
    return clients.seen
