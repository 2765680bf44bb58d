import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import pairwise

import pytest
import structlog
from tests.support.raw_server import Do, RawServer, closed_port, reply
from tests.unit.router.engines.engine import make_backend
from yarl import URL

from lexora_router.fleet.backend import Backend, Health
from lexora_router.fleet.probe import SOON_SECONDS, Prober

OK = reply(b"", content_type="")
BUSY = reply(b"", content_type="", status="503 Busy")


def nothing() -> None:
    """Do nothing."""


class Watch:
    """Runs a prober and knows when it has said something new."""

    def __init__(
        self,
        *backends: Backend,
        timeout: float = 1.0,
        interval: float = 0.01,
        doubt: float = 0.01,
        on_probe: Callable[[], None] = nothing,
    ) -> None:
        self.rounds = 0
        self._on_probe = on_probe
        self._news = asyncio.Event()
        named = {f"{number}-{backend.name}": backend for number, backend in enumerate(backends)}
        self.changes: list[tuple[str, bool]] = []  # of a backend, and whether it was a change
        self.prober = Prober(named, interval=interval, doubt=doubt, timeout=timeout, probed=self._probed, clock=time.monotonic)

    def _probed(self, backend: Backend, changed: bool) -> None:
        self.rounds += 1
        self.changes.append((backend.name, changed))
        self._on_probe()
        self._news.set()

    async def probes(self, count: int) -> None:
        async with asyncio.timeout(20):
            while self.rounds < count:
                self._news.clear()
                await self._news.wait()

    async def until(self, backend: Backend, state: Health) -> None:
        async with asyncio.timeout(20):
            while backend.health() is not state:
                self._news.clear()
                await self._news.wait()


@asynccontextmanager
async def watching(watch: Watch) -> AsyncIterator[Watch]:
    task = asyncio.create_task(watch.prober.run())
    try:
        yield watch
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await asyncio.sleep(0)


async def test_an_endpoint_that_answers_is_well() -> None:
    async with RawServer([OK]) as server:
        backend = make_backend(server.url, api_key="k")
        assert backend.health() is Health.UNKNOWN
        async with watching(Watch(backend)) as watch:
            await watch.until(backend, Health.HEALTHY)
            assert backend.endpoints[0].condition.reason == ""
            [request, *_] = server.requests
            assert (request.method, request.target) == ("GET", "/health")
            assert request.header("authorization") == "Bearer k"


async def test_going_and_coming_back() -> None:
    answers = [OK], [BUSY], [BUSY], [OK], [BUSY], [BUSY], [BUSY], [OK]
    async with RawServer(*answers) as server:
        backend = make_backend(server.url)
        seen = []
        watch = Watch(backend, on_probe=lambda: seen.append(backend.health() is Health.HEALTHY))
        with structlog.testing.capture_logs() as logs:
            async with watching(watch):
                await watch.probes(len(answers))
        assert seen[: len(answers)] == [True] * 6 + [False, True], "out after three in a row, back after one"
        assert [changed for _, changed in watch.changes][: len(answers)] == [True] + [False] * 5 + [True, True]
        told = [(line["event"], line.get("reason")) for line in logs]
        assert told == [("endpoint_up", None), ("endpoint_down", "the probe was answered 503"), ("endpoint_up", None)]


async def test_another_prober_of_the_same_endpoints_says_only_what_has_changed() -> None:
    async with RawServer([OK], [OK], [BUSY], [BUSY], [BUSY]) as server:
        backend = make_backend(server.url)
        with structlog.testing.capture_logs() as logs:
            for probes in (1, 4):  # as before and after a reload
                watch = Watch(backend)
                async with watching(watch):
                    await watch.probes(probes)
        assert [line["event"] for line in logs] == ["endpoint_up", "endpoint_down"]


async def test_a_doubtful_endpoint_is_asked_again_soon() -> None:
    async with RawServer([BUSY]) as server:
        backend = make_backend(server.url)
        backend.endpoints[0].condition.healthy = True  # as an earlier configuration's probes have found
        watch = Watch(backend, interval=3600)
        async with watching(watch):
            await watch.until(backend, Health.UNHEALTHY)
            assert watch.rounds == 3


async def test_one_that_nobody_listens_at_any_more_is_out_at_once() -> None:
    async with RawServer([OK, Do.CLOSE]) as server:
        backend = make_backend(server.url)
        watch = Watch(backend)
        async with watching(watch):
            await watch.until(backend, Health.HEALTHY)
            backend.endpoints[0].base = URL(f"http://127.0.0.1:{closed_port()}")
            rounds = watch.rounds
            await watch.until(backend, Health.UNHEALTHY)
            assert watch.rounds <= rounds + 2, "one more may have been on its way"


@pytest.mark.parametrize("breaks", ["the probe", "what follows"])
async def test_a_bug_in_one_probe_is_logged_and_ends_no_prober(breaks: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def bug(*args: object, **kwargs: object) -> None:
        raise RuntimeError("never seen before")

    async with RawServer([OK]) as server, RawServer([OK]) as well:
        backends = [make_backend(server.url), make_backend(well.url)]
        endpoint = backends[0].endpoints[0]
        watch = Watch(*backends)
        with structlog.testing.capture_logs() as logs, monkeypatch.context() as patched:
            patched.setattr(
                *((endpoint.adapter, "headers", bug) if breaks == "the probe" else (endpoint.condition, "probed", bug))
            )
            async with watching(watch):
                await watch.probes(3)
                assert backends[0].health() is Health.UNKNOWN
                patched.undo()
                await watch.until(backends[0], Health.HEALTHY)
                assert backends[1].health() is Health.HEALTHY
    found = [line for line in logs if line["event"] == "bug"]
    assert found
    assert {(line["log_level"], line["work"], line["endpoint"]) for line in found} == {("error", "probe", server.url)}


async def test_a_frozen_endpoint_is_down_after_the_probe_s_timeout_and_delays_no_other() -> None:
    async with RawServer([Do.HANG]) as frozen, RawServer([OK]) as well:
        backends = [make_backend(server.url) for server in (frozen, well)]
        async with watching(Watch(*backends, timeout=0.1)) as watch:
            await watch.until(backends[1], Health.HEALTHY)
            assert backends[0].health() is Health.UNKNOWN
            await watch.until(backends[0], Health.UNHEALTHY)
            assert "within 0.1 s" in backends[0].endpoints[0].condition.reason


async def test_nobody_listens() -> None:
    backend = make_backend(f"http://127.0.0.1:{closed_port()}")
    async with watching(Watch(backend)) as watch:
        await watch.until(backend, Health.UNHEALTHY)
        assert "the probe failed" in backend.endpoints[0].condition.reason


async def test_a_host_name_that_cannot_be_one_ends_no_prober() -> None:
    async with RawServer([OK]) as server:
        backends = [make_backend(server.url, type="openai_compatible"), make_backend(server.url)]
        backends[0].endpoints[0].base = URL("http://a..b:1")
        async with watching(Watch(*backends)) as watch:
            await watch.until(backends[0], Health.UNHEALTHY)
            await watch.until(backends[1], Health.HEALTHY)


async def test_what_a_call_found_out_first_is_told_all_the_same() -> None:
    backend = make_backend(f"http://127.0.0.1:{closed_port()}")
    [endpoint] = backend.endpoints
    endpoint.healthy = False  # as a call does that cannot connect
    with structlog.testing.capture_logs() as logs:
        watch = Watch(backend)
        async with watching(watch):
            await watch.probes(3)
    assert [line["event"] for line in logs] == ["endpoint_down"]


async def test_where_nothing_may_be_asked_a_connection_is_enough() -> None:
    async with RawServer([OK]) as server:
        backend = make_backend(server.url, type="openai_compatible")
        async with watching(Watch(backend)) as watch:
            await watch.until(backend, Health.HEALTHY)
        assert server.connections
        assert server.requests == []
    backend = make_backend(f"http://127.0.0.1:{closed_port()}", type="openai_compatible")
    async with watching(Watch(backend)) as watch:
        await watch.until(backend, Health.UNHEALTHY)


async def test_the_first_round_is_over_when_every_endpoint_was_asked() -> None:
    async with RawServer([OK]) as well, RawServer([Do.HANG]) as frozen:
        backend = make_backend("", urls=[well.url, frozen.url])
        async with watching(Watch(backend, timeout=0.05)) as watch:
            first = asyncio.create_task(watch.prober.first_round())
            await watch.until(backend, Health.HEALTHY)
            assert not first.done()
            async with asyncio.timeout(20):
                await first
            assert backend.health() is Health.DEGRADED


async def test_a_prober_that_ends_leaves_no_connection() -> None:
    async with RawServer([OK]) as server:
        backend = make_backend(server.url)
        async with watching(Watch(backend, interval=60)) as watch:
            await watch.until(backend, Health.HEALTHY)
        await server.wait_lost()


async def test_one_that_calls_suspect_is_asked_at_once_but_not_as_often_as_it_is_suspected() -> None:
    async with RawServer([OK]) as server:
        backend = make_backend(server.url)
        condition = backend.endpoints[0].condition
        async with watching(Watch(backend, interval=3600)) as watch:
            await watch.probes(1)
            for rounds in (2, 3, 4):
                began = time.monotonic()
                condition.suspect.set()
                await watch.probes(rounds)
            assert time.monotonic() - began >= 0.9 * SOON_SECONDS, "the third of them waits for its time"


async def test_one_that_is_out_is_asked_at_longer_and_longer_intervals() -> None:
    backend = make_backend(f"http://127.0.0.1:{closed_port()}")
    times: list[float] = []
    async with watching(Watch(backend, interval=3600, on_probe=lambda: times.append(time.monotonic()))) as watch:
        await watch.probes(5)
    pauses = [after - before for before, after in pairwise(times)]
    assert all(pause >= 0.9 * SOON_SECONDS * factor for pause, factor in zip(pauses, (1, 1, 2, 4), strict=False)), pauses
