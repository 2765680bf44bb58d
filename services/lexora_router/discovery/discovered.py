"""The addresses of one backend as its source has them by now, and how looking for them goes."""

import asyncio
from collections.abc import Callable

import structlog

from lexora_router.config.discover import DiscoverConfig
from lexora_router.discovery.source import LookFailed, Source
from lexora_router.policy.backoff import Backoff

# So many addresses are named in a line of the log.
MAX_NAMED = 20

_log = structlog.get_logger("lexora.discovery")


def unheard() -> None:
    """Nothing follows the addresses yet."""


class Discovered:
    """Follows one source. What it found last holds until a later look finds something else, however many fail between.

    `addresses` are `host:port`, and begin with those that the backend had `before`. `problem` is what the last look failed
    by, empty when it did not fail. `changed` is called after the first look and whenever addresses have changed.
    """

    def __init__(
        self, backend: str, settings: DiscoverConfig, source: Source, before: tuple[str, ...], clock: Callable[[], float]
    ) -> None:
        self.backend = backend
        self.settings = settings
        self.what = source.what
        self.addresses = before
        self.problem = ""
        self.failures = 0
        self.looked_at: float | None = None
        self.succeeded_at: float | None = None
        self.changed: Callable[[], None] = unheard
        self._source = source
        self._clock = clock
        self._backoff = Backoff(settings.min_interval, 2.0, settings.max_interval)
        self._failed = 0  # one after the other
        self._looked = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to follow the source, if it is not followed yet."""
        if self._task is None:
            self._task = asyncio.create_task(self._follow(), name="lexora-discovery")

    async def stop(self) -> None:
        """Follow it no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def first_look(self) -> None:
        """Return when a look has succeeded or failed."""
        await self._looked.wait()

    def in_words(self) -> str:
        """Where is looked, since when nothing is known, and why; for the error of a call that finds no endpoint."""
        if self.looked_at is None:
            return f"{self.what} is being looked up for the first time"
        ago = f"{self._clock() - self.looked_at:.1f} s ago"
        return f"{self.what} was looked up {ago}: {self.problem or 'it has no addresses'}"

    async def _follow(self) -> None:
        try:
            while True:
                pause = await self._look()
                await asyncio.sleep(pause)
        finally:
            await self._source.close()

    async def _look(self) -> float:
        """Look once; seconds until the next time."""
        first = self.looked_at is None
        before = self.addresses
        try:
            found = await self._source.look()
        except LookFailed as failure:
            pause = self._note_failure(str(failure), failure.again_in)
        except Exception:
            _log_bug(self.backend)
            pause = self._note_failure("internal error; the log has it", None)
        else:
            pause = found.again_in
            self._failed = 0
            self.looked_at = self.succeeded_at = self._clock()
            self.addresses = found.addresses
            used, there = len(found.addresses), len(found.addresses) + found.left_out
            self._note_problem(f"only {used} of its {there} addresses are used" if found.left_out else "")
            if found.addresses != before:
                _log_change(self, before)
        if first or self.addresses != before:
            self._looked.set()
            try:
                self.changed()
            except Exception:
                _log_bug(self.backend)
        return pause

    def _note_failure(self, problem: str, again_in: float | None) -> float:
        self.looked_at = self._clock()
        self.failures += 1
        self._failed += 1
        self._note_problem(problem)
        return self._backoff.ceiling(self._failed - 1) if again_in is None else again_in

    def _note_problem(self, problem: str) -> None:
        """One line of the log for each change of what is wrong, not for each look."""
        if problem != self.problem and problem:
            _log.warning("discovery_problem", backend=self.backend, source=self.what, problem=problem, kept=len(self.addresses))
        elif problem != self.problem:
            _log.info("discovery_works", backend=self.backend, source=self.what)
        self.problem = problem


def _log_bug(backend: str) -> None:
    """At the boundary: a bug in one look must not end those to come."""
    _log.exception("bug", work="discovery", backend=backend)


def _log_change(now: Discovered, before: tuple[str, ...]) -> None:
    added = [address for address in now.addresses if address not in set(before)]
    gone = [address for address in before if address not in set(now.addresses)]
    _log.info(
        "endpoints_discovered",
        backend=now.backend,
        source=now.what,
        endpoints=len(now.addresses),
        added=_named(added),
        gone=_named(gone),
    )


def _named(addresses: list[str]) -> list[str]:
    more = len(addresses) - MAX_NAMED
    return addresses if more <= 0 else [*addresses[:MAX_NAMED], f"and {more} more"]
