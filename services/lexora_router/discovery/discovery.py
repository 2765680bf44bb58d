"""The discovered addresses of all backends of one configuration. A reload takes over what it looks for in the same way."""

import asyncio
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from lexora_router.config import Config
from lexora_router.config.discover import DiscoverConfig
from lexora_router.discovery.discovered import Discovered, unheard
from lexora_router.discovery.source import Source


class Discovery:
    """By name of the backend. `start` it in the event loop, then `retire` it for the next one.

    `before` are the addresses that a backend has had until now: a source that replaces another begins with them, so that
    calls find endpoints while it is looked at for the first time.
    """

    def __init__(
        self,
        config: Config,
        previous: "Discovery | None",
        before: Mapping[str, tuple[str, ...]],
        clock: Callable[[], float],
    ) -> None:
        self._all: dict[str, Discovered] = {}
        for name, backend in config.backends().items():
            settings = backend.discover
            if settings is None:
                continue
            known = None if previous is None else previous.of(name)
            if known is None or known.settings != settings:
                known = Discovered(name, settings, source_of(settings), before.get(name, ()), clock)
            self._all[name] = known

    def __iter__(self) -> Iterator[Discovered]:
        return iter(self._all.values())

    def of(self, backend: str) -> Discovered | None:
        """That of a backend; None where its addresses are configured."""
        return self._all.get(backend)

    def follow(self, changed: Callable[[str], None]) -> None:
        """Call `changed` from now on, and nothing else, when the addresses of a backend have changed."""
        for name, discovered in self._all.items():
            discovered.changed = lambda name=name: changed(name)  # type: ignore[misc] # bound now

    def start(self) -> None:
        """Begin to look, where it has not begun."""
        for discovered in self:
            discovered.start()

    async def first_looks(self) -> None:
        """Return when each source has been looked at, with or without success."""
        await asyncio.gather(*(discovered.first_look() for discovered in self))

    async def retire(self, successor: "Discovery | None" = None) -> None:
        """Look no more, but for what a successor has taken over."""
        kept = set() if successor is None else {id(discovered) for discovered in successor}
        left = [discovered for discovered in self if id(discovered) not in kept]
        for discovered in left:
            discovered.changed = unheard
        await asyncio.gather(*(discovered.stop() for discovered in left))


def load_libraries(config: Config) -> None:
    """Import what the sources need, which takes up to 0.2 s: not for an event loop that serves calls."""
    for backend in config.backends().values():
        if backend.discover is not None:
            source_of(backend.discover)


def source_of(settings: DiscoverConfig) -> Source:
    """What is looked at under these settings. The libraries of a source are loaded where it is used."""
    if settings.file is not None:
        from lexora_router.discovery.file import FileTargets  # noqa: PLC0415

        return FileTargets(Path(settings.file), settings.labels)
    if settings.kubernetes is not None:
        from lexora_router.discovery.kubernetes import KubernetesService  # noqa: PLC0415

        return KubernetesService(settings, settings.kubernetes)
    from lexora_router.discovery.dns_records import DnsRecords  # noqa: PLC0415

    return DnsRecords(settings)
