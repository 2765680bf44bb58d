"""Reads the load of engines from their /metrics, for `concurrency: auto`. An engine without them is judged by its answers."""

import asyncio
import math
import random
from collections.abc import Callable, Iterable, Iterator
from functools import partial

import structlog

from lexora_router.adapters import LoadMetrics
from lexora_router.engines.transport import Transport, TransportError
from lexora_router.fleet.auto_limit import AutoLimit
from lexora_router.fleet.backend import Backend
from lexora_router.fleet.background import Work, one_each, survived
from lexora_router.fleet.endpoint import HttpEndpoint
from lexora_router.policy.concurrency import EngineLoad

MAX_METRICS_BYTES = 4 * 1024 * 1024
# No engine has more requests; the contract counts them in 32 bits.
MAX_REQUESTS = 1e9

_log = structlog.get_logger("lexora.scrape")


class Scraper:
    """Asks each endpoint with `concurrency: auto` every `scrape_interval` seconds, on connections of its own."""

    def __init__(self, backends: Iterable[Backend], *, timeout: float, clock: Callable[[], float]) -> None:
        self._backends = tuple(backends)
        self._timeout = timeout
        self._clock = clock
        self._moved = asyncio.Event()

    async def run(self) -> None:
        """Scrape until cancelled."""
        if any(backend.config.concurrency == "auto" for backend in self._backends):
            await one_each(self._wanted, self._moved)

    def follow(self) -> None:
        """Scrape the endpoints that there are now."""
        self._moved.set()

    def _wanted(self) -> dict[HttpEndpoint, Work]:
        every = ((each, each.auto, backend) for backend in self._backends for each in backend.endpoints)
        return {each: partial(self._watch, each, auto, backend) for each, auto, backend in every if auto is not None}

    async def _watch(self, endpoint: HttpEndpoint, auto: AutoLimit, backend: Backend) -> None:
        transport = Transport(connect_timeout=self._timeout, clock=self._clock, security=backend.transport.security)
        logged: str | None = None
        try:
            while True:
                where = {"backend": endpoint.backend, "endpoint": endpoint.address}
                with survived("scrape", **where):
                    problem = await self._scrape(endpoint, auto, transport)
                    if problem != logged:
                        _log.info("engine_metrics", **where, read=not problem, reason=problem)
                        logged = problem
                await asyncio.sleep(backend.config.scrape_interval * random.uniform(0.9, 1.1))  # noqa: S311 - spread out
        finally:
            transport.close()

    async def _scrape(self, endpoint: HttpEndpoint, auto: AutoLimit, transport: Transport) -> str:
        """Hand the numbers on; what is wrong otherwise, in words that stay the same as long as it is."""
        asked = self._clock()  # the numbers are at least as new
        adapter, names = endpoint.adapter, endpoint.adapter.load_metrics
        assert names is not None  # the configuration sees to it
        try:
            async with asyncio.timeout(self._timeout):
                url = adapter.metrics_url(endpoint.base)
                status, body = await transport.get(url, adapter.headers(), limit=MAX_METRICS_BYTES)
        except TimeoutError:
            return f"no answer within {self._timeout:g} s"
        except (TransportError, OSError) as error:
            return str(error)
        if status != 200:
            return f"/metrics was answered {status}"
        load = read_metrics(body, asked, names)
        if load is None:
            return f"/metrics does not have {names.waiting.decode()}"
        auto.scraped(load)
        return ""


def read_metrics(text: bytes, at: float, names: LoadMetrics) -> EngineLoad | None:
    """The load in an exposition taken at an instant; None when it does not say how many requests wait.

    Requests are summed over engines and models; of caches the fullest counts.
    """
    waiting = list(_values(text, names.waiting))
    if not waiting:
        return None
    cache = [value for name in names.cache for value in _values(text, name)]
    running = min(sum(_values(text, names.running)), MAX_REQUESTS)
    return EngineLoad(min(sum(waiting), MAX_REQUESTS), max(cache, default=0.0), at, running)


def _values(text: bytes, name: bytes) -> Iterator[float]:
    """Finite values of a metric's samples. Searched for, not taken apart: an exposition has thousands of lines."""
    at = text.find(name)
    while at >= 0:
        end = text.find(b"\n", at)
        line = text[at : end if end >= 0 else len(text)]
        sample = line[len(name) :]
        if text[at - 1 : at] in (b"", b"\n") and sample[:1] in (b"{", b" "):
            value = _number(sample.rpartition(b"}")[2].split())
            if value is not None:
                yield value
        at = text.find(name, at + len(name))


def _number(words: list[bytes]) -> float | None:
    """The first word, a timestamp may follow; None when it is no finite number."""
    try:
        value = float(words[0])
    except (ValueError, IndexError):
        return None
    return max(value, 0.0) if math.isfinite(value) else None
