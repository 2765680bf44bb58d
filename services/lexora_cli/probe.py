"""Asks every configured endpoint how it is and what it serves, the way the router would, all at the same time."""

import asyncio
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from yarl import URL

from lexora_cli.diagnosis import Trouble, of_failure, of_status
from lexora_router.config import BackendConfig, Config
from lexora_router.engines.tls import EngineSecurity
from lexora_router.engines.transport import Transport, TransportError

_HEALTH_BYTES = 4096
_LISTING_BYTES = 8 * 2**20
_MAX_MODELS = 1000


@dataclass(slots=True)
class Finding:
    """What one endpoint said. `latency_ms` is that of the first answer, None without one."""

    backend: str
    endpoint: str
    healthy: bool = False
    latency_ms: float | None = None
    models: list[str] | None = None  # None: it does not list them
    missing: list[str] = field(default_factory=list)  # configured, and not listed by the engine
    trouble: Trouble | None = None


async def probe_all(config: Config, discovered: Mapping[str, Sequence[str]] = MappingProxyType({})) -> list[Finding]:
    """One finding for each endpoint, in the order of the configuration. Takes no longer than the slowest time limit.

    `discovered` are the base addresses of endpoints that are not in the configuration, by backend.
    """
    probes = [
        _Probe(config, name, backend, address)
        for name, backend in config.backends().items()
        for address in (*backend.endpoints, *discovered.get(name, ()))
    ]
    return list(await asyncio.gather(*(probe.run() for probe in probes)))


class _Probe:
    def __init__(self, config: Config, name: str, backend: BackendConfig, address: str) -> None:
        self._config = config
        self._backend = backend
        self._section = "vllm" if config.single_backend else f"routing.backends.{name}"
        self._base = URL(address)
        self._adapter = backend.adapter()
        self._found = Finding(name, address)

    async def run(self) -> Finding:
        limit = min(self._backend.connect_timeout, self._config.health.timeout)
        transport = Transport(connect_timeout=limit, clock=time.monotonic, security=EngineSecurity(self._backend.tls))
        try:
            self._found.trouble = await self._health(transport) or await self._models(transport)
        finally:
            transport.close()
        self._found.healthy = self._found.trouble is None
        return self._found

    async def _health(self, transport: Transport) -> Trouble | None:
        url = self._adapter.health_url(self._base)
        if url is None:
            return None  # nothing free of charge to ask: the list of models has to do
        answer = await self._get(transport, url, self._config.health.timeout, _HEALTH_BYTES)
        if isinstance(answer, Trouble):
            return answer
        return None if answer[0] < 300 else self._of_status(answer[0], url)

    async def _models(self, transport: Transport) -> Trouble | None:
        url = self._adapter.models_url(self._base)
        answer = await self._get(transport, url, self._config.catalogue.timeout, _LISTING_BYTES)
        if isinstance(answer, Trouble):
            return answer
        status, body = answer
        if status in (401, 403) or status >= 500:
            return self._of_status(status, url)
        self._found.models = _ids(body) if status == 200 else None
        if self._found.models is not None and self._adapter.lists_what_is_asked:
            mapping = self._backend.model_mapping
            asked = [mapping.get(model.name, model.name) for model in self._backend.models]
            self._found.missing = [name for name in asked if name not in self._found.models]
        return None

    def _of_status(self, status: int, url: URL) -> Trouble:
        return of_status(status, self._section, url.path, usual=self._adapter.default_health_path is not None)

    async def _get(self, transport: Transport, url: URL, seconds: float, limit: int) -> tuple[int, bytes] | Trouble:
        started = time.monotonic()
        try:
            async with asyncio.timeout(seconds):
                answer = await transport.get(url, self._adapter.headers(), limit=limit)
        except (TransportError, TimeoutError, OSError) as error:
            return of_failure(error, self._section, seconds)
        if self._found.latency_ms is None:
            self._found.latency_ms = round((time.monotonic() - started) * 1000, 1)
        return answer


def _ids(body: bytes) -> list[str] | None:
    try:
        data = json.loads(body)["data"]
        return [entry["id"] for entry in data[:_MAX_MODELS] if isinstance(entry["id"], str)]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
