"""The keys of one issuer, kept fresh: read again in time, kept over an outage, and looked for at most once per cooldown."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial

import structlog

from lexora_router.access.jwt.key_set import Key, KeySet, UnusableKeys
from lexora_router.errors import AccessUnavailable
from lexora_router.policy.waiting_places import WaitingPlaces

FIRST_RETRY_SECONDS = 1.0
LAST_RETRY_SECONDS = 60.0
MISSING_SECONDS = 30.0
MAX_MISSING = 1024
MAX_WAITING = 256  # calls that wait until the issuer may be asked again, shared out by address

_log = structlog.get_logger("lexora.access")


class CannotRead(Exception):
    """Keys could not be read; the message says why, for the log."""


class KeyCache:
    """Keys by id, from `read` (None: they are what they were). Make and use it inside the event loop; `start`, then `stop`.

    They are read every `refresh` seconds. A key that is not there makes them be read at once, but not within `cooldown`
    seconds of the last time: until then its calls wait. Keys that cannot be read again are kept for `max_stale` seconds.
    `changed` gets the new set whenever it is another one. `clock` is monotonic, in seconds.
    """

    def __init__(
        self,
        name: str,
        read: Callable[[], Awaitable[KeySet | None]],
        *,
        refresh: float,
        cooldown: float,
        max_stale: float,
        clock: Callable[[], float],
    ) -> None:
        self.name = name
        self.changed: Callable[[KeySet], None] = lambda _: None
        self._read = read
        self._refresh, self._cooldown, self._max_stale = refresh, cooldown, max_stale
        self._clock = clock
        self._keys: KeySet | None = None
        self._read_at = self._tried_at = float("-inf")
        self._fault = ""  # of the last attempt
        self._begun = 0  # attempts so far
        self._attempt: asyncio.Task[None] | None = None
        self._loop: asyncio.Task[None] | None = None
        self._missing: dict[str, float] = {}  # kid -> until when nothing is asked for it
        self._places = WaitingPlaces(MAX_WAITING)

    def start(self) -> None:
        """Begin to read the keys."""
        self._loop = asyncio.create_task(self._keep_fresh(), name=f"lexora-keys-{self.name}")

    async def stop(self) -> None:
        """End it; calls that wait for a key are refused."""
        self._fault = self._fault or "stopped"
        tasks = [task for task in (self._loop, self._attempt) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    @property
    def count(self) -> int:
        """How many keys there are to verify with."""
        keys = self._usable()
        return 0 if keys is None else len(keys.keys)

    @property
    def readable(self) -> bool:
        """Whether they could be read the last time."""
        return not self._fault and self._read_at > float("-inf")

    def fitting(self, key_id: str, algorithm: str) -> tuple[Key, ...]:
        """The keys that may have signed a token, of those that are here; empty for none."""
        keys = self._usable()
        return () if keys is None else keys.fitting(key_id, algorithm)

    async def find(self, key_id: str, algorithm: str, source: str = "") -> tuple[Key, ...]:
        """As `fitting`, after a look at the issuer for an unknown key. Raises AccessUnavailable where that cannot be asked.

        `source` is where the call comes from: calls of one source wait in no place that another's call needs.
        """
        found = self.fitting(key_id, algorithm)
        if found or (self._usable() is not None and not self._fault and self._is_missing(key_id)):
            return found
        try:
            async with asyncio.timeout(None) as bound:
                place = self._places.take(source, partial(bound.reschedule, 0.0))
                if place is None:
                    raise self._unavailable()
                try:
                    await self._look(key_id, algorithm)
                finally:
                    self._places.leave(source, place)
        except TimeoutError:  # the place was given to another source
            raise self._unavailable() from None
        found = self.fitting(key_id, algorithm)
        if not found:
            if self._fault or self._usable() is None:
                raise self._unavailable()
            self._note_missing(key_id)
        return found

    async def _look(self, key_id: str, algorithm: str) -> None:
        """Read the keys, once in a cooldown however many calls wait for it; after a failure, do not wait."""
        if self._attempt is not None:
            await asyncio.wait((self._attempt,))
            if self._fault or self.fitting(key_id, algorithm):
                return
        # That one may have been answered before the key was there: only one that begins from here on says that it is not.
        begun = self._begun
        while self._begun == begun:
            wait = self._tried_at + self._cooldown - self._clock()
            if wait <= 0:
                self._begin()
            elif self._fault:
                return
            else:
                await asyncio.sleep(wait)
        if self._attempt is not None:
            await asyncio.wait((self._attempt,))

    def _begin(self) -> asyncio.Task[None]:
        if self._attempt is None:
            self._begun += 1
            self._attempt = asyncio.create_task(self._try())
        return self._attempt

    async def _try(self) -> None:
        try:
            keys = await self._read()
        except (CannotRead, UnusableKeys) as error:
            self._failed(str(error))
        except Exception:  # the boundary: a bug here must not end the look-out for keys
            _log.exception("bug")
            self._failed("internal error; the log has it")
        else:
            self._done(keys)
        finally:
            self._tried_at = self._clock()
            self._attempt = None

    def _done(self, keys: KeySet | None) -> None:
        if self._fault or self._read_at == float("-inf"):
            _log.info("issuer_keys", issuer=self.name, keys=len((keys or self._keys or KeySet(())).keys))
        self._fault, self._read_at = "", self._clock()
        if keys is not None and (self._keys is None or keys.digests != self._keys.digests):
            self._keys = keys
            self._missing.clear()
            self.changed(keys)

    def _failed(self, reason: str) -> None:
        if reason != self._fault:
            _log.warning(
                "issuer_keys_unreadable", issuer=self.name, reason=reason, kept=len(self._keys.keys) if self._keys else 0
            )
        self._fault = reason

    async def _keep_fresh(self) -> None:
        retry = FIRST_RETRY_SECONDS
        while True:
            await asyncio.wait((self._begin(),))
            if self._fault:
                await asyncio.sleep(min(retry, self._refresh))
                retry = min(2 * retry, LAST_RETRY_SECONDS)
            else:
                retry = FIRST_RETRY_SECONDS
                await asyncio.sleep(self._refresh)

    def _usable(self) -> KeySet | None:
        return self._keys if self._clock() - self._read_at <= self._max_stale else None

    def _is_missing(self, key_id: str) -> bool:
        return self._missing.get(key_id, float("-inf")) > self._clock()

    def _note_missing(self, key_id: str) -> None:
        self._missing.pop(key_id, None)
        if len(self._missing) >= MAX_MISSING:
            del self._missing[next(iter(self._missing))]
        self._missing[key_id] = self._clock() + MISSING_SECONDS

    def _unavailable(self) -> AccessUnavailable:
        return AccessUnavailable(
            "Whether this token holds cannot be found out now: the keys of its issuer cannot be read. Try again later.",
            max(1.0, self._tried_at + self._cooldown - self._clock()),
        )
