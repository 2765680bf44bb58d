import asyncio
import gzip
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from tests.support.raw_server import Do, RawServer, closed_port, reply
from yarl import URL

from lexora_router.engines.transport import ConnectError, Transport, TransportError, failure_of, head


@asynccontextmanager
async def transport(connect_timeout: float = 1.0) -> AsyncIterator[Transport]:
    made = Transport(connect_timeout=connect_timeout, clock=time.monotonic)
    try:
        yield made
    finally:
        made.close()
        await asyncio.sleep(0)


def test_the_head_of_a_request() -> None:
    url = URL("http://user:secret@h.example:81/a b?q=1#f")
    assert head("GET", url, {"x-a": "1"}) == b"GET /a%20b?q=1 HTTP/1.1\r\nhost: h.example:81\r\nx-a: 1\r\n"


async def test_an_origin_has_one_pool() -> None:
    async with transport() as made:
        assert made.origin(URL("http://h:1/a")) is made.origin(URL("http://h:1/b"))
        others = {id(made.origin(URL(url))) for url in ("http://h:1", "http://h:2", "http://g:1", "https://h:1")}
        assert len(others) == 4


async def test_a_small_answer_in_pieces() -> None:
    whole = reply(b'{"data":[]}', status="404 Not Found")
    async with RawServer([whole[:60], whole[60:-3], whole[-3:]]) as server, transport() as made:
        url = URL(f"{server.url}/v1/models?x=1")
        assert await made.get(url, {"authorization": "Bearer k"}, limit=100) == (404, b'{"data":[]}')
        [request] = server.requests
    assert (request.method, request.target) == ("GET", "/v1/models?x=1")
    assert sorted(request.headers) == [("authorization", "Bearer k"), ("host", f"127.0.0.1:{server.port}")]


async def test_a_coded_answer_is_decoded_within_the_limit() -> None:
    """A proxy that compresses whatever it is asked for hides no models and no metrics."""
    body = b'{"data":[]}'
    sent = [reply(gzip.compress(data), headers="content-encoding: gzip\r\n") for data in (body, bytes(10_000_000))]
    sent += [reply(body, headers=f"content-encoding: {coding}\r\n") for coding in ("gzip", "compress")]
    async with RawServer(*[[each] for each in sent]) as server, transport() as made:
        assert await made.get(URL(server.url), {}, limit=100) == (200, body)
        for words in ("more than 100 bytes", "is not valid gzip", "content coding `compress`"):
            with pytest.raises(TransportError, match=words):
                await made.get(URL(server.url), {}, limit=100)


async def test_an_answer_over_the_limit_is_none() -> None:
    async with RawServer([reply(b"x" * 101), Do.HANG]) as server, transport() as made:
        with pytest.raises(TransportError, match="more than 100 bytes"):
            await made.get(URL(server.url), {}, limit=100)


async def test_a_get_that_is_given_up_closes_its_connection() -> None:
    async with RawServer([Do.HANG]) as server, transport() as made:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.02):
                await made.get(URL(server.url), {}, limit=100)
        await server.wait_lost()


async def test_nobody_listens() -> None:
    async with transport() as made:
        with pytest.raises(ConnectError):
            await made.get(URL(f"http://127.0.0.1:{closed_port()}"), {}, limit=100)


async def test_a_server_that_speaks_no_tls() -> None:
    async with RawServer([Do.CLOSE]) as server, transport(connect_timeout=0.05) as made:
        with pytest.raises(ConnectError):
            await made.get(URL(f"https://127.0.0.1:{server.port}"), {}, limit=100)


def test_a_failure_names_the_place_and_the_cause() -> None:
    where = ("main", "http://e:1")
    assert failure_of(ConnectError("refused"), *where).message == "Backend `main` at http://e:1: cannot connect: refused."
    assert failure_of(TransportError("it broke"), *where).message == "Backend `main` at http://e:1: it broke."
