"""A serving process: the only one of its gateway, or one of several workers. When it ends, and how it says that it serves."""

import asyncio
from collections.abc import Callable

import structlog

from lexora_router.machine import share_memory
from lexora_router.process.launch import hangup_event, stop_event
from lexora_router.process.ports import Ports
from lexora_router.version import __version__
from lexora_router.workers.link import WorkerLink
from lexora_router.workers.plan import Place

_LOOK_SECONDS = 0.05
_log = structlog.get_logger("lexora")


class ServingProcess:
    """Make it in the event loop. `over` is set when the process is to end; `link` leads to the other workers."""

    def __init__(self, drain_seconds: Callable[[], float]) -> None:
        place = Place.load()
        self.over, self.hangup = stop_event(), hangup_event()
        self.ports = Ports(place)
        self.link = None if place is None else WorkerLink(place, self.over)
        if self.link is not None:
            self.link.drain_seconds = drain_seconds
        if place is not None:
            share_memory(place.workers)

    async def serves(self, **addresses: str | None) -> None:
        """Say that it serves: in the log, or to the supervisor, which says it when all workers do."""
        if self.link is None:
            shown = {name: where for name, where in addresses.items() if where}
            _log.info("serving", **shown, version=__version__)
        else:
            await self.link.serves()

    @property
    def hands_over(self) -> bool:
        """Whether it ends because another process is there in its place."""
        return self.link is not None and self.link.leaves

    async def until(self, empty: Callable[[], bool], seconds: float) -> None:
        """While it hands over, wait until it is `empty`, for at most so many seconds."""
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        # Connections and calls end in many places, of which this is worth no notice.
        while self.hands_over and not empty() and loop.time() < end:  # noqa: ASYNC110
            await asyncio.sleep(_LOOK_SECONDS)

    async def close(self) -> None:
        """Leave what was counted to the other workers."""
        if self.link is not None:
            await self.link.close()
