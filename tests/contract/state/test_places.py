"""Where a Valkey may be: behind TLS, Sentinels, a cluster, a slow network; and what is said where it cannot be used."""

import asyncio
import os
import socket
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from secrets import token_hex

import pytest

from lexora_router.state.address import parse
from lexora_router.state.link import StateLink
from lexora_router.state.port import StateUnavailable
from lexora_router.state.tls_context import Security, TlsContext
from lexora_router.state.valkey_state import ValkeyState
from tests.contract.state.tally import TALLY
from tests.contract.state.test_port import PROGRAMS, report, tally
from tests.support.links import settle
from tests.support.tls import Authority
from tests.support.valkey import ValkeyProcess, free_port

SECRET = "top-secret"
PLAIN = Security()


def state(url: str, security: Security = PLAIN) -> ValkeyState:
    return ValkeyState(parse(url), {"tally": TALLY}, namespace=token_hex(4), security=security)


async def usable(url: str, security: Security = PLAIN) -> None:
    """One exchange there."""
    one = state(url, security)
    try:
        await one.open()
        answer = await one.exchange(report("a", 1, 5, join=True))
        assert tally(answer.answers[0]).total == 5
    finally:
        await one.close()


async def refusal(url: str, security: Security = PLAIN) -> str:
    """Why it cannot be used."""
    one = state(url, security)
    try:
        with pytest.raises(StateUnavailable) as refused:
            async with asyncio.timeout(10):
                await one.open()
        return str(refused.value)
    finally:
        await one.close()


@asynccontextmanager
async def in_front(
    server: ValkeyProcess, *, context: ssl.SSLContext | None = None, wait: Callable[[], Awaitable[None]] | None = None
) -> AsyncIterator[int]:
    """A port that leads to the server: through TLS, or with a wait before each answer."""
    pumps = set[asyncio.Task[None]]()

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, slow: bool) -> None:
        try:
            while data := await reader.read(65536):
                if slow and wait is not None:
                    await wait()
                writer.write(data)
        except OSError:
            pass
        finally:
            writer.close()

    async def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", server.port)
        pumps.update(
            {asyncio.create_task(pump(reader, far_writer, False)), asyncio.create_task(pump(far_reader, writer, True))}
        )

    listening = await asyncio.start_server(accepted, "127.0.0.1", 0, ssl=context)
    yield listening.sockets[0].getsockname()[1]
    listening.close()
    for task in pumps:
        task.cancel()
    await asyncio.gather(*pumps, return_exceptions=True)
    await listening.wait_closed()


async def test_tls_with_certificates_of_both_sides(server: ValkeyProcess, tmp_path: Path) -> None:
    ours, others = Authority(tmp_path), Authority(tmp_path, "others")
    theirs, own = ours.issue("store", "localhost"), ours.issue("gateway", "gateway")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(ours.ca))
    context.load_cert_chain(*theirs.paths())
    context.verify_mode = ssl.CERT_REQUIRED
    shown = Security(str(ours.ca), *own.paths())
    async with in_front(server, context=context) as port:
        await usable(f"valkeys://localhost:{port}", shown)
        await usable(f"rediss://localhost:{port}", Security(str(ours.ca), str(own.both)))
        wrong = Security(str(others.ca), *own.paths())
        assert "certificate is refused: " in await refusal(f"valkeys://localhost:{port}", wrong)
        assert "certificate is refused: " in await refusal(f"valkeys://127.0.0.1:{port}", shown)  # another name than its own
        assert "was lost" in await refusal(f"valkeys://localhost:{port}", Security(str(ours.ca)))  # TLS 1.3 says it afterwards
        assert "was lost" in await refusal(f"valkey://localhost:{port}")


def test_a_certificate_that_was_renewed_is_shown_with_the_next_connection(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    tls = TlsContext(Security(str(authority.ca), *authority.issue("gateway").paths()))
    first = tls.current()
    assert tls.current() is first
    renewed = authority.issue("gateway")
    os.utime(renewed.cert, (0, 0))
    assert tls.current() is not first
    renewed.key.unlink()
    with pytest.raises(FileNotFoundError):
        tls.current()


async def test_sentinels_name_the_server(server: ValkeyProcess, tmp_path: Path) -> None:
    server.command("ACL", "SETUSER", "behind", "reset", "on", f">{SECRET}", "~*", "&*", "+@all")
    with ExitStack() as stack, ValkeyProcess(tmp_path / "open", sentinel_of=server.port) as sentinel:
        silent = stack.enter_context(socket.create_server(("127.0.0.1", 0)))  # it takes connections, and answers nothing
        place = f"127.0.0.1:1,127.0.0.1:{silent.getsockname()[1]},127.0.0.1:{sentinel.port}"
        await usable(f"valkey+sentinel://{place}/main")
        await usable(f"valkey+sentinel://behind:{SECRET}@{place}/main")
        assert "have no service other" in await refusal(f"valkey+sentinel://{place}/other")
    with ValkeyProcess(tmp_path / "guarded", {"requirepass": SECRET}, sentinel_of=server.port) as sentinel:
        place = f"127.0.0.1:{sentinel.port}"
        await usable(f"valkey+sentinel://behind:{SECRET}@{place}/main")
        assert "refuses the user or the password" in await refusal(f"valkey+sentinel://{place}/main")


async def test_a_failover_is_followed(tmp_path: Path) -> None:
    with ValkeyProcess(tmp_path / "1") as one, ValkeyProcess(tmp_path / "2") as other:
        other.command("REPLICAOF", "127.0.0.1", one.port)
        await settle(lambda: b"state=online" in one.raw("INFO", "replication"), 20)
        with ValkeyProcess(tmp_path / "3", sentinel_of=one.port) as sentinel:
            sentinel.command("SENTINEL", "SET", "main", "down-after-milliseconds", 200)
            await settle(lambda: bool(sentinel.command("SENTINEL", "REPLICAS", "main")), 30)
            store = state(f"valkey+sentinel://127.0.0.1:{sentinel.port}/main")
            link = StateLink(store, PROGRAMS, timeout=0.5, clock=time.monotonic)
            await link.start()
            await settle(lambda: not link.degraded)
            member = link.member
            await settle(lambda: member.encode() in other.raw("HGETALL", store.key.decode()))
            one.kill()
            await settle(lambda: link.degraded)
            await settle(lambda: not link.degraded, 30)
            assert store.where == f"127.0.0.1:{other.port}"
            await link.leave()


async def test_a_cluster_says_which_server_has_the_keys(tmp_path: Path) -> None:
    buses = [free_port(), free_port()]
    cluster = [{"cluster-enabled": "yes", "cluster-port": str(bus)} for bus in buses]
    with ValkeyProcess(tmp_path / "1", cluster[0]) as one, ValkeyProcess(tmp_path / "2", cluster[1]) as other:
        one.command("CLUSTER", "ADDSLOTSRANGE", 0, 8191)
        other.command("CLUSTER", "ADDSLOTSRANGE", 8192, 16383)
        one.command("CLUSTER", "MEET", "127.0.0.1", other.port, buses[1])
        for each in (one, other):
            await settle(lambda each=each: b"cluster_state:ok" in each.command("CLUSTER", "INFO"), 20)
        for _ in range(4):  # namespaces on both sides
            await usable(f"valkey+cluster://127.0.0.1:1,127.0.0.1:{one.port}")


async def test_an_older_and_a_newer_version_share_one_store(server: ValkeyProcess) -> None:
    namespace = token_hex(4)
    older = ValkeyState(parse(server.url), {"tally": TALLY}, namespace=namespace)
    newer = ValkeyState(parse(server.url), {"tally": TALLY, "new": TALLY}, namespace=namespace)
    for each in (older, newer):
        await each.open()
    for number in (1, 2):
        await older.exchange(report("a", number, 5, join=number == 1))
        answer = await newer.exchange(report("b", number, 7, join=number == 1))
    assert (answer.members, tally(answer.answers[0]).by) == (2, {"a": 5, "b": 7})
    for each in (older, newer):
        await each.close()


async def test_what_is_said_of_a_place_without_a_store(server: ValkeyProcess) -> None:
    assert "cannot be resolved" in await refusal(f"valkey://user:{SECRET}@no-such-host.invalid")
    assert "cannot be reached: Connection refused" in await refusal("valkey://127.0.0.1:1")
    refused = await refusal(f"valkey://user:{SECRET}@127.0.0.1:{server.port}")
    assert "refuses the user or the password" in refused
    assert SECRET not in refused


NONSENSE = (
    b"+OK\r\n",
    b":1\r\n",
    b"*2\r\n:1\r\n:-5\r\n",
    b"*3\r\n:1\r\n:1\r\n$1\r\nx\r\n",
    b"$-1\r\n",
    b"*1\r\n$-1\r\n",
    b"HTTP/1.1 400 \r\n\r\n",
)


@pytest.mark.parametrize("answer", NONSENSE)
async def test_what_is_no_store_is_out_of_reach(answer: bytes) -> None:
    async def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(65536):
            writer.write(answer)
        writer.close()

    async with await asyncio.start_server(accepted, "127.0.0.1", 0) as listening:
        store = state(f"valkey://127.0.0.1:{listening.sockets[0].getsockname()[1]}")
        link = StateLink(store, PROGRAMS, timeout=0.5, clock=time.monotonic, replicas=2)
        await link.start()
        assert (link.degraded, link.members) == (True, 2)
        assert "nonsense" in link.reason or "lost" in link.reason
        assert await link.exchanged() is False
        await link.leave()


async def test_a_slow_store_is_shared_and_one_beyond_the_timeout_is_not(server: ValkeyProcess) -> None:
    delay = 0.03
    async with in_front(server, wait=lambda: asyncio.sleep(delay)) as port:
        link = StateLink(state(f"valkey://127.0.0.1:{port}"), PROGRAMS, timeout=0.6, clock=time.monotonic)
        await link.start()
        try:
            await settle(lambda: not link.degraded)
            assert await link.exchanged() is True
            delay = 2.0
            begun = time.monotonic()
            assert await link.exchanged() is False
            assert time.monotonic() - begun < delay
            await settle(lambda: link.degraded)
            delay = 0.0
            await settle(lambda: not link.degraded, 10)
        finally:
            await link.leave()
