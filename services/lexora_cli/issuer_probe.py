"""Reads the keys of every configured issuer of tokens, the way the router would."""

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lexora_router.config import Config
    from lexora_router.config.jwt import JwtProvider

_SHOWN_KEYS = 10


@dataclass(slots=True)
class IssuerFinding:
    """What reading an issuer's keys came to: their ids and algorithms, or the problem."""

    name: str
    issuer: str
    keys: list[str] = field(default_factory=list)
    problem: str = ""

    @property
    def healthy(self) -> bool:
        """Whether there are keys."""
        return not self.problem

    @property
    def summary(self) -> str:
        """The keys, in a line."""
        rest = f" and {len(self.keys) - _SHOWN_KEYS} more" if len(self.keys) > _SHOWN_KEYS else ""
        return f"keys: {', '.join(self.keys[:_SHOWN_KEYS])}{rest}"


async def probe_issuers(config: "Config") -> list[IssuerFinding]:
    """One finding for each issuer of the modes with tokens. Takes no longer than the slowest time limit."""
    if not config.auth.tokens:
        return []
    return list(await asyncio.gather(*(_probe(provider) for provider in config.auth.jwt)))


async def _probe(provider: "JwtProvider") -> IssuerFinding:
    from lexora_router.access.jwt.key_cache import CannotRead  # noqa: PLC0415 - most commands need no cryptography
    from lexora_router.access.jwt.key_set import UnusableKeys  # noqa: PLC0415
    from lexora_router.access.jwt.key_sources import reader_of  # noqa: PLC0415

    found = IssuerFinding(provider.label, provider.issuer)
    try:
        keys = await reader_of(provider)()
    except (CannotRead, UnusableKeys) as error:
        found.problem = str(error)
    else:
        found.keys = [f"{key.id or 'without an id'} ({key.algorithm})" for key in (keys.keys if keys is not None else ())]
    return found
