"""What reads the bytes of others: it reads them, or raises the one error that it documents, in time that grows with them."""

import asyncio
import base64
import contextlib
import gzip
import json
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import brotli
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from lexora_contract.content_coding import STEP_BYTES, ContentDecoder, Undecodable
from lexora_contract.operations import Dialect
from lexora_contract.port import Flow
from lexora_gateway.errors import Failure
from lexora_gateway.http.request_reader import RequestReader
from lexora_gateway.http.site import Site
from lexora_router.access.jwt import key_set, token_reader
from lexora_router.access.jwt.claims import principal_of
from lexora_router.access.key_file import KeyFileError, read_keys
from lexora_router.config.jwt import JwtProvider
from lexora_router.config.load import ConfigError, dump, load
from lexora_router.engines import http1
from lexora_router.engines.sse import Inspector
from lexora_router.engines.transport_errors import TransportError
from lexora_router.errors import InvalidRequest, Unauthenticated, UpstreamFailure
from lexora_router.payload.event_stream import Splitter
from lexora_router.payload.inspect import inspect_json
from lexora_router.payload.multipart import inspect_multipart, names_of, with_model_multipart
from lexora_router.payload.one_model import with_one_model
from lexora_router.policy.callers import TrustedProxies, network_of
from tests.fuzz.mutations import JSON, edited, in_pieces, revalued
from tests.support.issuer import SigningKey, unsigned
from tests.support.process import REPOSITORY

pytestmark = pytest.mark.fuzz

# -- events

EVENTS = [
    b'data: {"choices":[{"delta":{"content":"x"},"finish_reason":"stop"}],"usage":{"prompt_tokens":1}}\n\ndata: [DONE]\n\n',
    b'event: message_delta\r\ndata: {"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{}}\r\n\r\n',
    b': ping\n\nevent: message_stop\ndata: {"type":"message_stop"}\n\n',
    b'data: {"error":{"message":"x","code":500}}\r\rdata: {"type":"response.completed","response":{"status":"completed"}}\r\r',
]
EVENT_BYTES = edited(EVENTS, (b"\n\n", b"\r\n\r\n", b"\r", b"data:", b'"usage"', b'"error"', b"[" * 3000, b"NaN"))


@given(in_pieces(EVENT_BYTES), st.sampled_from(Dialect), st.booleans())
def test_events(pieces: list[bytes], dialect: Dialect, hide: bool) -> None:
    splitter, out = Splitter(), b""
    for piece in pieces:
        out += splitter.feed(piece)
    whole = b"".join(pieces)
    assert whole.startswith(out)
    assert (out + splitter.flush()).startswith(whole.rstrip())
    inspector = Inspector(dialect, hide_usage=hide)
    with contextlib.suppress(UpstreamFailure):
        for piece in pieces:
            inspector.feed(piece)
            assert inspector.lacks_line in (True, False)
        inspector.finish()
        inspector.end()


# -- heads and bodies of requests

HEADS = [
    b"POST /v1/chat/completions?a=1 HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nAccept: */*\r\n\r\nhello" * 3,
    b"POST /v1/embeddings HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n0\r\nT: x\r\n\r\n",
    b"GET http://x/stats HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: h2c\r\nExpect: 100-continue\r\n\r\n",
    b"OPTIONS * HTTP/1.0\r\nHost: [::1]:80\r\n\r\n",
]
HEAD_WORDS = (
    b"\r\n",
    b"\n",
    b": ",
    b"Content-Length: ",
    b"Transfer-Encoding: chunked\r\n",
    b"CONNECT ",
    b"PRI * HTTP/2.0\r\n\r\n",
)


class Client:
    """A connection, its loop and its transport in one, whose requests are answered as soon as they are whole."""

    address = ""
    certificate = ()

    def __init__(self) -> None:
        self.loop = self.transport = self
        self.taken: list[Any] = []

    def is_closing(self) -> bool:
        return True

    def take(self, exchange: Any) -> None:
        self.taken.append(exchange)

    def read_on(self) -> None:
        pass


def requests_in(pieces: list[bytes], *, parse: bool) -> list[Any]:
    """What was read of these pieces: each request that is whole, then the failure."""
    client: Any = Client()
    reader: Any = RequestReader(client, Site(None))
    seen: list[Any] = []
    for piece in pieces:
        if parse:
            reader._known = None
        failure: Failure | None = reader.feed(piece)
        for exchange in client.taken:
            if not exchange.more_body:
                seen.append((exchange.method, exchange.path, exchange.query, exchange.pairs, exchange.headers, exchange.unread))
                reader.forget(exchange)
        client.taken = [exchange for exchange in client.taken if exchange.more_body]
        if failure is not None:
            assert 400 <= failure.status < 506
            return [*seen, failure.message]
    return seen


@given(in_pieces(edited(HEADS, HEAD_WORDS)))
def test_requests(pieces: list[bytes]) -> None:
    requests_in(pieces, parse=False)


REPEATED = HEADS[0][: len(HEADS[0]) // 3]


@given(st.lists(st.one_of(st.just(REPEATED), edited([REPEATED], HEAD_WORDS)), max_size=3))
def test_heads_that_come_again_are_read_as_the_parser_reads_them(more: list[bytes]) -> None:
    reads = [REPEATED, REPEATED, *filter(None, more)]
    assert requests_in(reads, parse=False) == requests_in(reads, parse=True)


CONTENT = json.dumps({"model": "m", "messages": [{"role": "user", "content": "x" * 300}], "stream": True}).encode()
CODED = {
    b"gzip": gzip.compress(CONTENT) * 2,
    b"deflate": zlib.compress(CONTENT),
    b"br": brotli.compress(CONTENT),
    b"zstd": base64.b64decode("KLUv/SQBCQAAeB4EdVg="),
}


@pytest.mark.parametrize("coding", CODED)
def test_codings(coding: bytes) -> None:
    @given(in_pieces(edited([CODED[coding]])), st.booleans())
    def read(pieces: list[bytes], twice: bool) -> None:
        decoder = ContentDecoder([coding, coding] if twice else [coding])
        with contextlib.suppress(Undecodable):
            for piece in pieces:
                for step in decoder.decode(piece):
                    assert len(step) <= STEP_BYTES * 2
            decoder.end()

    read()


BODIES = [
    {
        "model": "m",
        "messages": [{"role": "user", "content": "x"}],
        "stream": True,
        "stream_options": {"include_usage": True},
        "n": 2,
    },
    {
        "model": "m",
        "prompt": ["a"],
        "max_tokens": 5,
        "priority": 3,
        "user": "u",
        "metadata": {"user_id": "{}"},
        "cache_salt": "s",
    },
]
PATHS = ["/v1/chat/completions", "/v1/completions", "/v1/messages", "/v1/responses", "/v1/embeddings", "/v1/rerank"]


@given(
    st.sampled_from(PATHS),
    st.one_of(revalued(BODIES), edited([json.dumps(each).encode() for each in BODIES], (b"NaN", b"[" * 3000))),
)
def test_bodies(path: str, body: bytes) -> None:
    try:
        fields = inspect_json(path, body)
    except InvalidRequest as error:
        str(error).encode()
        return
    if fields.model:
        with_one_model("application/json", body, fields.model, named=True)


FORM = (
    b'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\nwhisper\r\n'
    b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\nContent-Type: audio/wav\r\n\r\nRIFF\r\n'
    b'--b\r\nContent-Disposition: form-data; name="stream"\r\n\r\ntrue\r\n--b--\r\n'
)
FORM_WORDS = (b"--b\r\n", b"--b--", b"\r\n\r\n", b'name="model"', b"name*=utf-8''model", b'"', b";", b"\\")
TYPE = b"multipart/form-data; boundary=b"
TYPES = edited([TYPE, b'multipart/form-data; boundary="b"; charset=x'], (b"boundary=", b";", b'"'))


@given(st.one_of(st.just(TYPE), TYPES), edited([FORM], FORM_WORDS))
def test_forms(content_type: bytes, body: bytes) -> None:
    kind = content_type.decode("latin-1")
    with contextlib.suppress(InvalidRequest):
        inspect_multipart(kind, body)
        names_of(kind, body)
        changed = with_model_multipart(kind, body, "other")
        assert inspect_multipart(kind, changed).model == "other"


# -- heads and bodies of engines' answers

ANSWERS = [
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2;x=y\r\n{}\r\n0\r\nt: x\r\n\r\n",
    b"HTTP/1.0 503 Busy\r\nretry-after: 1\r\nconnection: close\r\n\r\nbusy",
    b"HTTP/1.1 204 No Content\r\n\r\n",
]
ANSWER_WORDS = (
    b"\r\n",
    b"content-length: ",
    b"transfer-encoding: chunked\r\n",
    b"HTTP/1.1 101 X\r\n\r\n",
    b" 999 ",
    b"upgrade: x\r\n",
)


class Engine:
    """The pool of a connection, its transport, and what takes its answer."""

    def __init__(self) -> None:
        self.closed = False

    def now(self) -> float:
        return 0.0

    def keep(self, connection: http1.Connection) -> None:
        pass

    def forget(self, connection: http1.Connection) -> None:
        pass

    drop_idle = pause_reading = resume_reading = lambda self: None

    def write(self, data: bytes) -> None:
        pass

    def is_closing(self) -> bool:
        return self.closed

    def abort(self) -> None:
        self.closed = True

    def get_write_buffer_size(self) -> int:
        return 0

    def begin(self, response: Any) -> "Engine":
        assert 200 <= response.status <= 599
        return self

    def data(self, data: bytes) -> None:
        assert data

    def end(self) -> None:
        pass


async def answered(pieces: list[bytes]) -> None:
    engine: Any = Engine()
    connection = http1.Connection(engine)
    connection.connection_made(engine)
    connection.send(b"GET / HTTP/1.1\r\n\r\n", b"", engine, Flow())
    for piece in pieces:
        if not engine.closed:
            connection.data_received(piece)
    connection.connection_lost(None)
    with contextlib.suppress(TransportError):
        await connection.ended()


@given(in_pieces(edited(ANSWERS, ANSWER_WORDS)))
def test_answers_of_engines(pieces: list[bytes]) -> None:
    asyncio.run(answered(pieces))


# -- files of the operator

EXAMPLE = (REPOSITORY / "config" / "lexora_config.yaml").read_text()
UNCOMMENTED = "\n".join(line.removeprefix("# ") for line in EXAMPLE.splitlines()).encode()
CONFIGS = [
    {
        "routing": {
            "default_backend": "a",
            "backends": {"a": {"url": "http://x", "models": ["m", {"name": "n"}], "headers": {"a": "b"}}},
        }
    },
    {
        "server": {"host": "0.0.0.0", "port": 1, "tls": {"cert": "c", "key": "k"}, "cors": {"origins": ["*"]}},
        "auth": {
            "mode": "keys+jwt",
            "keys_file": "k",
            "jwt": [{"issuer": "https://x", "audience": ["a"], "claims": {"tenant": "t"}}],
        },
        "tenants": {"t": {"rate": 1}},
        "admin": {"allow": ["127.0.0.1/32"]},
    },
]
YAML_WORDS = (
    b"*a",
    b"&a ",
    b"<<: ",
    b"!!int ",
    b"- ",
    b": ",
    b"{",
    b"[",
    b"\t",
    b'"\\uD800"',
    b"? ",
    b"|\n",
    b"~",
    b"1e999",
    b".nan",
)
CONFIG_BYTES = st.one_of(
    edited([EXAMPLE.encode()[:4000], UNCOMMENTED[:3000], *(yaml.safe_dump(each).encode() for each in CONFIGS)], YAML_WORDS),
    revalued(CONFIGS),
)


@given(data=CONFIG_BYTES)
def test_configurations(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    file = _file(tmp_path_factory, data)
    try:
        loaded = load(str(file), {})
    except ConfigError as error:
        str(error).encode()
    else:
        dump(loaded.config).encode()
        "\n".join((*loaded.warnings, *loaded.open)).encode()


def _file(factory: pytest.TempPathFactory, data: bytes) -> Path:
    path = factory.getbasetemp() / "fuzzed"
    path.write_bytes(data)
    path.chmod(0o600)
    return path


RECORD = {
    "id": "a" * 12,
    "sha256": "0" * 64,
    "name": "n",
    "tenant": "t",
    "scopes": ["call"],
    "models": ["*"],
    "rate": 1.5,
    "burst": 2,
    "priority": 50,
    "created": "2026-01-01T00:00:00Z",
    "expires": "9999-12-31T23:59:59+14:00",
}


@given(line=st.one_of(revalued([RECORD]), edited([json.dumps(RECORD).encode()], (b"\n", b"\\ud800", b"e400"))))
def test_files_of_keys(tmp_path_factory: pytest.TempPathFactory, line: bytes) -> None:
    file = _file(tmp_path_factory, b'{"lexora_keys":1}\n' + line + b"\n")
    try:
        records = read_keys(file)
    except KeyFileError as error:
        str(error).encode()
    else:
        for record in records.values():
            record.principal()


# -- tokens, and the keys that sign them

SIGNERS = [SigningKey(algorithm, algorithm) for algorithm in ("RS256", "ES256", "EdDSA")]
SETS = [{"keys": [signer.jwk() for signer in SIGNERS]}]


@given(st.one_of(revalued(SETS), edited([json.dumps(SETS[0]).encode()], (b'"crv"', b"\\ud800", b"AAAA"))))
def test_sets_of_keys(document: bytes) -> None:
    with contextlib.suppress(key_set.UnusableKeys):
        keys = key_set.parse_keys(document)
        assert all(key.algorithm in token_reader.ALGORITHMS for key in keys.keys)


PROVIDER = JwtProvider.model_validate(
    {
        "issuer": "https://issuer.example",
        "audience": ["a"],
        "claims": {"tenant": "org", "models": "models", "scopes": "scope", "rate": "limits.rate", "priority": "p", "name": "n"},
        "jwks_file": "k",
    }
)
CLAIMS = {
    "iss": "https://issuer.example",
    "sub": "s",
    "org": "o",
    "models": ["*"],
    "scope": "lexora:call",
    "limits": {"rate": 5},
    "p": "low",
    "n": "x",
    "exp": 1e10,
    "nbf": 0,
    "iat": 0,
    "aud": "a",
}


@given(JSON | st.just({"alg": "RS256", "kid": "a"}), revalued([CLAIMS]), st.binary(max_size=64))
def test_tokens(header: Any, claims: bytes, signature: bytes) -> None:
    with contextlib.suppress(Unauthenticated):
        token = token_reader.read(unsigned(header, json.loads(claims), signature))
        principal_of(token.claims, PROVIDER).tenant.encode()


# -- addresses

HOPS = edited(
    [b"1.2.3.4, 10.0.0.1", b"[2001:db8::1]:443, ::ffff:10.0.0.1, fe80::1%eth0"], (b",", b":", b"[", b"]", b"%", b"/8")
)


@given(HOPS, st.sampled_from(["10.0.0.1", "1.1.1.1", "", "unix"]))
def test_forwarded_addresses(hops: bytes, peer: str) -> None:
    client = TrustedProxies(["10.0.0.0/8"]).client(peer, hops.decode("latin-1"))
    assert len(client) <= 45
    network_of(client)


# -- time

BYTES = 64 * 1024


def _events(data: bytes) -> None:
    inspector = Inspector(Dialect.OPENAI, hide_usage=True)
    for start in range(0, len(data), 512):
        inspector.feed(data[start : start + 512])


def _requests(data: bytes) -> None:
    requests_in([data[start : start + 512] for start in range(0, len(data), 512)], parse=False)


def _answers(data: bytes) -> None:
    asyncio.run(answered([data[start : start + 512] for start in range(0, len(data), 512)]))


def _refusing(read: Callable[[bytes], Any], *errors: type[Exception]) -> Callable[[bytes], None]:
    def reading(data: bytes) -> None:
        with contextlib.suppress(*errors):
            read(data)

    return reading


def _coded(coding: bytes) -> Callable[[bytes], None]:
    return _refusing(lambda data: [None for _ in ContentDecoder([coding]).decode(data)], Undecodable)


LINEAR: dict[str, tuple[Callable[[bytes], Any], bytes, bytes]] = {
    "one long event": (_events, b"data: ", b"x"),
    "lines without an event": (_events, b"", b"data: x\n"),
    "events of CR": (_events, b"", b"data: x\r\r"),
    "marks in one event": (_events, b"data: ", b'"usage"'),
    "small chunks": (_requests, b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
    "requests in a row": (_requests, b"", b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx"),
    "small chunks of an answer": (_answers, b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
    "nested JSON": (_refusing(lambda data: inspect_json("/v1/completions", data), InvalidRequest), b"", b"["),
    "many names": (_refusing(lambda data: inspect_json("/v1/completions", data), InvalidRequest), b'{"model":"m"', b',"a":1'),
    "NaN": (_refusing(lambda data: inspect_json("/v1/completions", data), InvalidRequest), b'{"model":"m","a":[1', b",NaN"),
    "delimiters": (
        _refusing(lambda data: inspect_multipart(TYPE.decode(), data), InvalidRequest),
        b"",
        b"\r\n--",
    ),
    "empty members": (_coded(b"gzip"), b"", gzip.compress(b"")),
    "addresses": (lambda data: TrustedProxies(["::/0", "0.0.0.0/0"]).client("::1", data.decode()), b"", b"1.1.1.1,"),
    "dots": (_refusing(lambda data: token_reader.read(data.decode()), Unauthenticated), b"a.b.", b"c"),
}


@pytest.mark.serial
@pytest.mark.parametrize("case", LINEAR)
def test_four_times_the_input_takes_no_more_than_about_four_times_as_long(case: str) -> None:
    read, start, unit = LINEAR[case]

    def cost(size: int) -> float:
        data = start + unit * (size // len(unit))
        return min(_seconds(read, data) for _ in range(5))

    assert cost(BYTES * 4) < 10 * cost(BYTES) + 0.001


def _seconds(read: Callable[[bytes], Any], data: bytes) -> float:
    began = time.thread_time()
    read(data)
    return time.thread_time() - began
