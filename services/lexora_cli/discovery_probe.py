"""Looks once for the engines of every backend that has `discover`, the way the router would."""

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lexora_router.config import Config
    from lexora_router.config.discover import DiscoverConfig


@dataclass(slots=True)
class DiscoveryFinding:
    """What one look came to: addresses, or the problem. A source that has none now is no fault of the configuration."""

    backend: str
    source: str
    endpoints: list[str] = field(default_factory=list)
    problem: str = ""

    @property
    def healthy(self) -> bool:
        """Whether there are addresses."""
        return not self.problem


async def find_engines(config: "Config") -> list[DiscoveryFinding]:
    """One finding for each backend with `discover`. Takes no longer than the slowest time limit."""
    wanted = [(name, backend.discover) for name, backend in config.backends().items()]
    looks = [_look(config, name, settings) for name, settings in wanted if settings is not None]
    return list(await asyncio.gather(*looks))


async def _look(config: "Config", name: str, settings: "DiscoverConfig") -> DiscoveryFinding:
    from lexora_router.discovery.discovery import source_of  # noqa: PLC0415 - few configurations have it
    from lexora_router.discovery.source import LookFailed  # noqa: PLC0415

    source = source_of(settings)
    found = DiscoveryFinding(name, source.what)
    try:
        found.endpoints = list(config.backends()[name].discovered((await source.look()).addresses))
        if not found.endpoints:
            found.problem = "it has no addresses now"
    except LookFailed as failure:
        found.problem = str(failure)
    finally:
        await source.close()
    return found
