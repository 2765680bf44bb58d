"""Which models the backends list: asked in parallel, each with its own time limit, and remembered."""

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec
import structlog

from lexora_router.adapters import Adapter, ListedModel
from lexora_router.engines.transport import Transport, TransportError
from lexora_router.fleet.backend import Backend
from lexora_router.fleet.background import survived
from lexora_router.fleet.endpoint import HttpEndpoint

MAX_LISTING_BYTES = 8 * 1024 * 1024
MAX_LISTED_MODELS = 10_000
# Between two questions because of other endpoints.
MOVED_SECONDS = 0.5
# So many models are named in a line of the log.
MAX_NAMED = 20
# Endpoints of one backend that are asked at the same time: a list may be large.
ASKED_AT_ONCE = 16

_log = structlog.get_logger("lexora.catalogue")


@dataclass(slots=True)
class _Listing:
    models: dict[str, ListedModel] = field(default_factory=dict)


class _Models(msgspec.Struct):
    data: list[msgspec.Raw]


class Catalogue:
    """What every backend last listed: the models that each of its endpoints lists, since a call may go to any of them.

    A backend of which no endpoint answers keeps its last listing.
    """

    def __init__(self, backends: Mapping[str, Backend], *, ttl: float, timeout: float, clock: Callable[[], float]) -> None:
        self._backends = backends
        self._ttl = ttl
        self._timeout = timeout
        self._clock = clock
        self._listings = {name: _Listing() for name in backends}
        self._listers: dict[str, list[str]] | None = None
        self._refreshed_at = float("-inf")
        self._refreshing: asyncio.Task[None] | None = None
        self._changed: set[str] = set()  # backends that have had other endpoints since they were asked
        self._moved = asyncio.Event()
        self._differ: dict[str, frozenset[str]] = {}  # by backend, as it was logged last

    def adopt(self, other: "Catalogue") -> None:
        """Begin with another one's listings of backends with the same name, until they are asked again."""
        for name in self._listings.keys() & other._listings.keys():
            self._listings[name] = other._listings[name]
        self._listers = None

    def listed(self, backend: str) -> Mapping[str, ListedModel]:
        """Models of a backend by id, as last seen."""
        return self._listings[backend].models

    def listers(self, model: str) -> Sequence[str]:
        """The backends that list a model, in the order of the configuration. One look-up, however many backends there are."""
        if self._listers is None:
            self._listers = {}
            for name, listing in self._listings.items():
                for each in listing.models:
                    self._listers.setdefault(each, []).append(name)
        return self._listers.get(model, ())

    async def fresh(self, max_age: float | None = None) -> None:
        """Return when no listing is older than `max_age` seconds (the ttl, if None), or its backend did not answer in time."""
        if self._clock() - self._refreshed_at <= (self._ttl if max_age is None else max_age):
            return
        if self._refreshing is None or self._refreshing.done():
            self._refreshing = asyncio.create_task(self._refresh())
        await asyncio.shield(self._refreshing)

    async def keep_fresh(self) -> None:
        """Ask again before the listings have grown old, so that no caller waits for one that hangs; until cancelled."""
        while True:
            with survived("catalogue"):
                await self.fresh(self._ttl / 4)
            until = self._clock() + max(self._ttl / 2, 1.0)
            while (left := until - self._clock()) > 0 and await self._moves(left):
                with survived("catalogue"):
                    await self._ask_moved()
                await asyncio.sleep(MOVED_SECONDS)

    def follow(self, backend: str) -> None:
        """Ask this one soon: it has other endpoints."""
        self._changed.add(backend)
        self._moved.set()

    async def _moves(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                return await self._moved.wait()
        except TimeoutError:
            return False

    async def _ask_moved(self) -> None:
        changed, self._changed = self._changed, set()
        self._moved.clear()
        await asyncio.gather(*(self._ask(self._backends[name]) for name in changed))

    @property
    def refreshing(self) -> bool:
        """Whether a round is under way."""
        return self._refreshing is not None and not self._refreshing.done()

    async def close(self) -> None:
        """End a round that is under way."""
        if self._refreshing is not None:
            self._refreshing.cancel()
            await asyncio.gather(self._refreshing, return_exceptions=True)

    async def _refresh(self) -> None:
        async with asyncio.TaskGroup() as group:
            for backend in self._backends.values():
                group.create_task(self._ask(backend))
                await asyncio.sleep(0)  # one per turn of the event loop: all at once would hold up calls
        self._refreshed_at = self._clock()

    async def _ask(self, backend: Backend) -> None:
        with survived("catalogue", backend=backend.name):
            await self._list(backend)

    async def _list(self, backend: Backend) -> None:
        endpoints = [each for each in backend.endpoints if each.condition.healthy is not False] or backend.endpoints
        # Not over the calls' connections: one that is kept for them must have served one of them, or its end says little.
        transport = backend.transport.apart()
        some = asyncio.Semaphore(ASKED_AT_ONCE)
        try:
            answers = await asyncio.gather(*(self._listed_by(endpoint, transport, some) for endpoint in endpoints))
        finally:
            transport.close()
        listings = [models for models in answers if models is not None]
        if listings:
            self._remember(backend.name, _Listing(self._common(backend.name, listings)))

    async def _listed_by(
        self, endpoint: HttpEndpoint, transport: Transport, some: asyncio.Semaphore
    ) -> dict[str, ListedModel] | None:
        try:
            async with asyncio.timeout(self._timeout), some:
                status, body = await transport.get(
                    endpoint.adapter.models_url(endpoint.base), endpoint.adapter.headers(), limit=MAX_LISTING_BYTES
                )
            if status != 200:
                raise ValueError(f"status {status}")
            return _parse(body, endpoint.adapter)
        except (TransportError, TimeoutError, ValueError, RecursionError) as error:  # msgspec's errors are ValueErrors
            where = {"backend": endpoint.backend, "endpoint": endpoint.address}
            _log.debug("models_not_listed", **where, error=f"{type(error).__name__}: {error}"[:200])
            return None

    def _common(self, backend: str, listings: Sequence[dict[str, ListedModel]]) -> dict[str, ListedModel]:
        """The models that are in every listing; which ones are not is logged when it changes."""
        first, *others = listings
        if not others:
            return first
        common = first.keys() & frozenset.intersection(*map(frozenset, others))
        missing = frozenset().union(*listings) - common
        if missing != self._differ.get(backend, frozenset()):
            self._differ[backend] = missing
            if missing:
                _log.warning("models_differ", backend=backend, not_everywhere=sorted(missing)[:MAX_NAMED])
        return {id_: model for id_, model in first.items() if id_ in common}

    def _remember(self, backend: str, listing: _Listing) -> None:
        if listing.models.keys() != self._listings[backend].models.keys():
            self._listers = None
        self._listings[backend] = listing


def _parse(body: bytes, adapter: Adapter) -> dict[str, ListedModel]:
    models: dict[str, ListedModel] = {}
    for raw in msgspec.json.decode(body, type=_Models).data[:MAX_LISTED_MODELS]:
        with contextlib.suppress(msgspec.ValidationError):
            model = adapter.listed(bytes(raw))
            models.setdefault(model.id, model)
    return models
