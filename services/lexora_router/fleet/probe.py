"""Asks every endpoint how it is, on connections and timers of its own, so that load delays no probe."""

import asyncio
import random
from collections.abc import Callable, Mapping
from functools import partial

import structlog

from lexora_router.engines.transport import Transport, TransportError
from lexora_router.engines.transport_errors import LocalShortage
from lexora_router.fleet.backend import Backend
from lexora_router.fleet.background import Work, one_each, survived
from lexora_router.fleet.endpoint import HttpEndpoint
from lexora_router.fleet.endpoint_health import Condition
from lexora_router.policy.backoff import Backoff

MAX_ANSWER_BYTES = 4096
# Between two probes of an endpoint that calls have found something wrong with; twice as long each time, up to `interval`.
SOON_SECONDS = 0.1

_log = structlog.get_logger("lexora.probe")


class Prober:
    """Probes each endpoint every `interval` seconds, and gives it `timeout` seconds to answer.

    One that was well and fails a probe is asked again after `doubt` seconds, until it is clear what it is. One whose breaker
    opens or that refuses a call's connection is asked at once, and then at longer and longer intervals while it is out: an
    engine that is restarted may be back before its turn.

    `probed` gets the backend after each probe, and whether the endpoint's health is another than after the one before; it is
    called for each endpoint of each backend, so it should look at no other backend unless something has changed.
    """

    def __init__(
        self,
        backends: Mapping[str, Backend],
        *,
        interval: float,
        doubt: float,
        timeout: float,
        probed: Callable[[Backend, bool], None],
        clock: Callable[[], float],
    ) -> None:
        self._backends = backends
        self._interval = interval
        self._soon = Backoff(SOON_SECONDS, 2.0, interval)
        self._doubt = doubt
        self._timeout = timeout
        self._probed = probed
        self._clock = clock
        self._first = asyncio.Event()
        self._moved = asyncio.Event()
        self._note_first()

    async def first_round(self) -> None:
        """Return when something is known of every endpoint, by a probe under this configuration or an earlier one."""
        await self._first.wait()

    async def run(self) -> None:
        """Probe until cancelled."""
        await one_each(self._wanted, self._moved)

    def follow(self) -> None:
        """Probe the endpoints that there are now."""
        self._moved.set()
        self._note_first()

    def _wanted(self) -> dict[HttpEndpoint, Work]:
        backends = self._backends.values()
        return {each: partial(self._watch, each, backend) for backend in backends for each in backend.endpoints}

    async def _watch(self, endpoint: HttpEndpoint, backend: Backend) -> None:
        transport = Transport(connect_timeout=self._timeout, clock=self._clock, security=backend.transport.security)
        hurried = 0  # probes since it was last well for a whole interval
        before: bool | None = None  # by the probe before
        try:
            while True:
                endpoint.condition.suspect.clear()
                with survived("probe", backend=endpoint.backend, endpoint=endpoint.address):
                    if await self._probe(endpoint, transport):
                        healthy = endpoint.condition.healthy
                        self._probed(backend, healthy is not before)
                        before = healthy
                    self._note_first()
                hurried = await self._pause(endpoint.condition, hurried)
        finally:
            transport.close()

    async def _pause(self, condition: Condition, hurried: int) -> int:
        """Wait for the time of the next probe; returns how many have been hurried by then."""
        if condition.doubtful:
            await _sleep(self._doubt)
            return hurried
        soon = self._soon.ceiling(max(0, hurried - 1))
        if condition.healthy is not False and not condition.breaker_open(self._clock()):
            try:
                async with asyncio.timeout(_spread(self._interval)):
                    await condition.suspect.wait()
            except TimeoutError:
                return 0
            soon = soon if hurried else 0.0
        await _sleep(soon)
        return hurried + 1

    def _note_first(self) -> None:
        if self._first.is_set():
            return
        backends = self._backends.values()
        probed = all(endpoint.condition.healthy is not None for backend in backends for endpoint in backend.endpoints)
        if probed and all(backend.settled for backend in backends):
            self._first.set()

    async def _probe(self, endpoint: HttpEndpoint, transport: Transport) -> bool:
        """Ask it once, and note what comes of it; False when that says nothing of the endpoint."""
        refused = False
        try:
            async with asyncio.timeout(self._timeout):
                reason = await _ask(endpoint, transport)
        except TimeoutError:
            reason = f"no answer to the probe within {self._timeout:g} s"
        except LocalShortage:
            return False
        except (TransportError, OSError, UnicodeError) as error:
            reason = f"the probe failed: {error}"
            refused = isinstance(error.__cause__ or error, ConnectionRefusedError)
        # No process listens: no call could connect either. All else may pass, such as a probe that a busy engine answers late.
        condition = endpoint.condition
        condition.probed(reason, self._clock(), sure=refused)
        healthy = condition.healthy is True
        if healthy is not condition.logged:
            condition.logged = healthy
            where = {"backend": endpoint.backend, "endpoint": endpoint.address}
            if healthy:
                _log.info("endpoint_up", **where)
            else:
                _log.warning("endpoint_down", **where, reason=reason)
        return True


async def _sleep(seconds: float) -> None:
    await asyncio.sleep(_spread(seconds))


def _spread(seconds: float) -> float:
    return seconds * random.uniform(0.9, 1.1)  # noqa: S311 - not all at the same time


async def _ask(endpoint: HttpEndpoint, transport: Transport) -> str:
    """Empty when the endpoint is well, else what is wrong with it."""
    url = endpoint.adapter.health_url(endpoint.base)
    if url is not None:
        status, _ = await transport.get(url, endpoint.adapter.headers(), limit=MAX_ANSWER_BYTES)
        return "" if status < 300 else f"the probe was answered {status}"
    await transport.origin(endpoint.base).reach()
    return ""
