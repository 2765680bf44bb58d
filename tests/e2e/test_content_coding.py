"""Bodies that clients compress: decoded within the bounds, over both wires, and never with their coding to the engine."""

import gzip
import json
import os
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

import brotli  # type: ignore[import-untyped]
import grpc
import pytest

from lexora.v1 import call_pb2, router_pb2, router_pb2_grpc
from lexora.v1.raw_pb2 import RawCall
from tests.support import wire
from tests.support.engine import ScriptedEngine
from tests.support.raw_server import reply
from tests.support.servers import Gateway, calm_config

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

MIB = 2**20
CHAT = "/v1/chat/completions"
LIMIT = 8 * MIB
# Random letters, so that the compressed form comes in several pieces as well.
GOOD = json.dumps({"model": "m", "messages": [{"role": "user", "content": os.urandom(200_000).hex()}]}).encode()
FORM = (
    b'--x\r\ncontent-disposition: form-data; name="model"\r\n\r\nm\r\n'
    b'--x\r\ncontent-disposition: form-data; name="file"; filename="a.wav"\r\n\r\n' + bytes(100_000) + b"\r\n--x--\r\n"
)
BOMB = b'{"model":"m","messages":[],"user":"' + b"a" * (128 * MIB) + b'"}'


def raw_deflate(data: bytes) -> bytes:
    return zlib.compress(data, wbits=-zlib.MAX_WBITS)


CODINGS = {
    "gzip": gzip.compress,
    "Deflate": zlib.compress,
    "deflate": raw_deflate,
    "br": lambda data: brotli.compress(data, quality=1),
    "zstd": zstd.compress,
    "gzip, br": lambda data: brotli.compress(gzip.compress(data), quality=1),
}


@pytest.fixture(scope="module")
def engine() -> Iterator[ScriptedEngine]:
    with ScriptedEngine("m") as engine:
        engine.answer = reply(b'{"object":"chat.completion","choices":[]}')
        yield engine


@pytest.fixture(scope="module")
def gateway(engine: ScriptedEngine, folder: Path) -> Iterator[Gateway]:
    config = calm_config(main={"url": engine.url})
    config["server"]["max_body_bytes"] = LIMIT
    with Gateway(config, folder) as process:
        yield process
        wire.wait_idle(process.http)
        assert "Traceback" not in process.output


def compressed(path: str, body: bytes, coding: str, *, chunks: int = 0, **headers: str) -> bytes:
    """A request in a content coding; in so many chunks, or with a length."""
    given = {"content-encoding": coding} | {name.replace("_", "-"): value for name, value in headers.items()}
    if not chunks:
        return wire.request(path, body, headers=given)
    size = len(body) // chunks + 1
    pieces = [body[at : at + size] for at in range(0, len(body), size)]
    framed = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
    return wire.request(path, headers=given | {"content-length": "", "transfer-encoding": "chunked"}) + framed


def most_resident(gateway: Gateway) -> int:
    """The most memory that the gateway ever had, in bytes."""
    return int(Path(f"/proc/{gateway.pid}/status").read_text().partition("VmHWM:")[2].split()[0]) * 1024


@pytest.mark.parametrize("chunks", [0, 1000])
@pytest.mark.parametrize("coding", CODINGS)
def test_the_engine_gets_what_was_meant(gateway: Gateway, engine: ScriptedEngine, coding: str, chunks: int) -> None:
    encode = CODINGS[coding]
    with wire.connect(gateway.http) as connection:
        for path, body, kind in (
            (CHAT, GOOD, "application/json"),
            ("/v1/audio/transcriptions", FORM, "multipart/form-data; boundary=x"),
        ):
            connection.sendall(compressed(path, encode(body), coding, chunks=chunks, content_type=kind))
            assert wire.read_response(connection).status == 200
            assert (engine.last.target, engine.last.body) == (path, body)
            assert "content-encoding" not in engine.last.names


def test_the_short_forms_and_the_rest_of_the_facade_take_them_too(gateway: Gateway) -> None:
    answer = wire.exchange(gateway.http, compressed("/generate", gzip.compress(b'{"prompt": "a", "n": "x"}'), "gzip"))
    assert (answer.status, json.loads(answer.body)["error"]["param"]) == (400, "n")


REFUSED = {
    "unknown": ("compress", GOOD, 415, "content-encoding"),
    "unknown among others": ("gzip, lz4", GOOD, 415, "content-encoding"),
    "too many": ("gzip, gzip, gzip, gzip, gzip", GOOD, 415, "content-encoding"),
    "not of the coding": ("gzip", GOOD, 400, "content-encoding"),
    "cut off": ("zstd", zstd.compress(GOOD)[:-5], 400, "content-encoding"),
    "in another order": ("br, gzip", brotli.compress(gzip.compress(GOOD), quality=1), 400, "content-encoding"),
    "empty": ("gzip", gzip.compress(b""), 400, "body"),
    "no byte": ("br", b"", 400, "body"),
    "still compressed": ("gzip", gzip.compress(gzip.compress(GOOD)), 400, None),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_decoded(gateway: Gateway, engine: ScriptedEngine, what: str) -> None:
    coding, body, status, param = REFUSED[what]
    before = len(engine.requests)
    answer = wire.exchange(gateway.http, compressed(CHAT, body, coding))
    error = json.loads(answer.body)["error"]
    assert (answer.status, error["param"]) == (status, param), answer.body
    assert answer.header("accept-encoding") == ("gzip, deflate, br, zstd" if status == 415 else None)
    assert len(engine.requests) == before


@pytest.mark.parametrize("coding", CODINGS)
def test_a_bomb_is_refused_while_it_unfolds(gateway: Gateway, coding: str) -> None:
    bomb = CODINGS[coding](BOMB)
    assert len(bomb) < MIB
    before = most_resident(gateway)
    answer = wire.exchange(gateway.http, compressed(CHAT, bomb, coding))
    assert (answer.status, json.loads(answer.body)["error"]["code"]) == (413, "request_too_large")
    assert most_resident(gateway) - before < 4 * LIMIT


def test_compressed_messages_of_grpc(gateway: Gateway, engine: ScriptedEngine) -> None:
    options = [("grpc.max_send_message_length", -1)]
    with grpc.insecure_channel(gateway.grpc, options, compression=grpc.Compression.Gzip) as channel:
        stub = router_pb2_grpc.RouterServiceStub(channel)
        call = RawCall(path=CHAT, body=GOOD)
        assert stub.Generate(router_pb2.GenerateRequest(call=call_pb2.Call(raw=call))).raw.head.status == 200
        assert engine.last.body == GOOD
        before = most_resident(gateway)
        with pytest.raises(grpc.RpcError) as refused:
            stub.Generate(router_pb2.GenerateRequest(call=call_pb2.Call(raw=RawCall(path=CHAT, body=BOMB))))
        assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert most_resident(gateway) - before < 4 * LIMIT
