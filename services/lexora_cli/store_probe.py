"""Tries the store that replicas share, the way the router would, without becoming a replica."""

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from lexora_router.config import Config

_SECONDS = 3.0
_TRIES = 5


@dataclass(slots=True)
class StoreFinding:
    """What the store said: its version and how long it took, or the problem. `store` has no password."""

    store: str
    version: str = ""  # empty where its user may not ask
    latency_ms: float | None = None
    problem: str = ""

    @property
    def healthy(self) -> bool:
        """Whether replicas can share it."""
        return not self.problem

    @property
    def summary(self) -> str:
        """The answer, in a line."""
        return f"{self.latency_ms:g} ms, {self.version or 'version unknown: its user may not ask (INFO)'}"


async def probe_store(config: "Config") -> list[StoreFinding]:
    """One finding, where a store is configured. Takes no longer than three seconds."""
    address = config.state.address()
    if address is None:
        return []
    from lexora_router.process.shared_state import valkey  # noqa: PLC0415 - its client takes time to import
    from lexora_router.state.port import StateUnavailable  # noqa: PLC0415

    found, state = StoreFinding(address.shown), valkey(config.state, address)
    try:
        async with asyncio.timeout(_SECONDS):
            await state.open()
            found.version = await state.version()
            found.latency_ms = round(min([await _time(state.attempt) for _ in range(_TRIES)]) * 1000, 1)
    except StateUnavailable as error:
        found.problem = str(error)
    except TimeoutError:
        found.problem = f"no answer within {_SECONDS:g} s"
    finally:
        await state.close()
    if found.latency_ms is not None and found.latency_ms / 1000 >= config.state.timeout:
        found.problem = (
            f"answers in {found.latency_ms:g} ms, and is given up after {config.state.timeout * 1000:g} ms: raise state.timeout"
        )
    return [found]


async def _time(work: "Callable[[], Awaitable[None]]") -> float:
    begun = time.monotonic()
    await work()
    return time.monotonic() - begun
