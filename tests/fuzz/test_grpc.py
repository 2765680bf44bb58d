"""Messages of every rpc with made-up values, and frames that no client sends, on the gRPC port."""

import asyncio
from typing import Any, cast

import grpc
import pytest
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status
from hypothesis import given
from hypothesis import strategies as st

from lexora.v1 import call_pb2, embed_pb2, explain_pb2, router_pb2
from lexora_contract.operations import CHAT
from lexora_contract.rpcs import RPCS, Rpc
from tests.fuzz.conftest import LEAKED, MODEL, Fuzzed
from tests.fuzz.messages import messages
from tests.support.http2 import (
    CONTINUATION,
    DATA,
    GOAWAY,
    HEADERS,
    PREFACE,
    PRIORITY,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    frame,
    message,
    rpc_head,
)

pytestmark = pytest.mark.fuzz
OWN_FAULTS = {grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN}
# Reload reads the same file again, and these change the keys that the test itself shows.
LEFT_OUT = {"RevokeKey", "RotateKey", "ImportKeys"}
CALLED = [rpc for rpc in RPCS.values() if rpc.name not in LEFT_OUT]
# Those that an engine answers.
CALLS = [
    call_pb2.Call(completion={"model": MODEL, "text": "x", "sampling": {"max_tokens": 2}}),
    call_pb2.Call(chat={"model": MODEL, "messages": [{"role": 3, "text": "x"}], "sampling": {"max_tokens": 2}}),
    call_pb2.Call(
        raw={"path": CHAT, "body": b'{"model":"qwen3-32b","messages":[{"role":"user","content":"x"}],"max_tokens":2}'}
    ),
]
GOOD: dict[str, list[Message]] = {
    "Generate": [router_pb2.GenerateRequest(call=call) for call in CALLS],
    "Stream": [router_pb2.StreamRequest(call=call) for call in CALLS],
    "Explain": [explain_pb2.ExplainRequest(call=call) for call in CALLS],
    "Embed": [embed_pb2.EmbedRequest(model="embed-small", texts={"values": ["x"]})],
}
CASES = st.sampled_from(CALLED).flatmap(
    lambda rpc: st.tuples(st.just(rpc), messages(rpc.request, [good.SerializeToString() for good in GOOD.get(rpc.name, ())]))
)


def fault(rpc: Rpc[Any, Any], channel: grpc.Channel, data: bytes, headers: dict[str, str], secret: str) -> str:
    """What is wrong with the answer to these bytes; empty when nothing is."""
    make = channel.unary_stream if rpc.name == "Stream" else channel.unary_unary
    asked: Any = make(rpc.path, None, None)
    try:
        answer = asked(data, metadata=tuple(headers.items()), timeout=20)
        parts = list(answer) if rpc.name == "Stream" else [answer]
    except grpc.RpcError as error:
        return _wrong_failure(cast("grpc.Call", error), secret)
    return "a secret in it" if secret and any(secret.encode() in part for part in parts) else ""


def _wrong_failure(error: grpc.Call, secret: str) -> str:
    said = f"{error.code()} {error.details()} {error.trailing_metadata()}"
    if error.code() in OWN_FAULTS:
        return said
    if (secret and secret in said) or LEAKED.search(said):
        return f"it shows too much: {said}"
    found = dict(error.trailing_metadata() or ())
    status = Status.FromString(cast("bytes", found.get("grpc-status-details-bin", b"")))
    info = ErrorInfo()
    return "" if any(detail.Unpack(info) and info.reason for detail in status.details) else f"no reason: {said}"


def test_no_message_is_the_routers_own_fault(fuzzed: Fuzzed) -> None:
    with grpc.insecure_channel(fuzzed.gateway.grpc) as channel:

        @given(CASES, fuzzed.credentials)
        def ask(case: tuple[Rpc[Any, Any], bytes], credential: str) -> None:
            rpc, data = case
            found = fault(rpc, channel, data, fuzzed.headers(credential), fuzzed.secret)
            assert not found, f"{rpc.name} {data!r}: {found}"

        ask()
    fuzzed.settled()


PATHS = st.sampled_from([*RPCS, "/nothing/there", ""])
HEADS = PATHS.map(rpc_head)
PAYLOADS = st.one_of(
    st.binary(max_size=64),
    HEADS,
    st.tuples(HEADS, st.binary(max_size=16)).map(b"".join),
    st.binary(max_size=32).map(message),
    st.sampled_from([b"\0\xff\xff\xff\xff", b"\1\0\0\0\1x", b"\0" * 8, b"\xff" * 4]),
)
STREAMS = st.one_of(st.integers(0, 9), st.integers(0, 2**31 - 1))
KINDS = st.one_of(
    st.sampled_from([DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, GOAWAY, WINDOW_UPDATE, CONTINUATION]), st.integers(0, 255)
)
FRAMES = st.tuples(KINDS, st.integers(0, 255), STREAMS, PAYLOADS).map(lambda drawn: frame(*drawn))
WHOLE = st.tuples(st.sampled_from([1, 3, 5]), HEADS, st.binary(max_size=32)).map(
    lambda drawn: frame(HEADERS, 4, drawn[0], drawn[1]) + frame(DATA, 1, drawn[0], message(drawn[2]))
)
BYTES = st.tuples(
    st.sampled_from([PREFACE, PREFACE + frame(SETTINGS, 0, 0, b""), b"", b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01"]),
    st.lists(st.one_of(FRAMES, WHOLE, st.binary(max_size=40)), max_size=8).map(b"".join),
).map(b"".join)


async def send(target: str, data: bytes) -> None:
    """Give the server these bytes and no more, and read until it has nothing to say."""
    host, _, port = target.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write(data)
        writer.write_eof()
        async with asyncio.timeout(20):
            while await reader.read(65536):
                pass
    except ConnectionError:
        pass
    finally:
        writer.transport.abort()


@pytest.mark.parametrize("fuzzed", ["keys"], indirect=True)
def test_no_frames_end_the_process(fuzzed: Fuzzed) -> None:
    with asyncio.Runner() as runner, grpc.insecure_channel(fuzzed.gateway.grpc) as channel:
        health = next(rpc for rpc in CALLED if rpc.name == "Health")

        @given(BYTES)
        def ask(data: bytes) -> None:
            runner.run(send(fuzzed.gateway.grpc, data))
            assert fuzzed.gateway.alive

        ask()
        assert not fault(health, channel, b"", {}, fuzzed.secret)
    fuzzed.settled()
