"""Tokens that an operator has revoked before their end, by their ids (`jti`), as a file lists them."""

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import structlog

from lexora_router.access.pauses import with_pauses
from lexora_router.config.regular_file import open_regular
from lexora_router.errors import AccessUnavailable, Unauthenticated

LOOK_SECONDS = 0.5  # a revocation is in force within 2 seconds, as that of a key
MAX_BYTES = 16 * 2**20
MAX_LINE = 16 * 1024

_log = structlog.get_logger("lexora.access")
_Stamp = tuple[int, int, int]


class RevokedTokens:
    """The ids in a file, one a line; empty lines and those that begin with `#` count for nothing.

    It is looked at from `start` to `stop`; `changed` is called when it has others. While the file cannot be read the last ids
    hold. Before it was read for the first time no token of the issuer is let in.
    """

    def __init__(self, name: str, path: Path) -> None:
        self.changed: Callable[[], None] = lambda: None
        self._name, self._path = name, path
        self._ids: frozenset[str] | None = None
        self._stamp: _Stamp | None = None
        self._fault = ""
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to look at the file."""
        self._task = asyncio.create_task(self._watch(), name=f"lexora-revoked-{self._name}")

    async def stop(self) -> None:
        """End it."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def check(self, token_id: object) -> None:
        """Raise Unauthenticated for the id of a revoked token, AccessUnavailable while that is not known."""
        if self._ids is None:
            raise AccessUnavailable("Whether this token was revoked cannot be found out now; try again shortly.")
        if token_id is not None and not isinstance(token_id, str):
            raise Unauthenticated("The token's claim `jti` must be a text.", "claims")
        if token_id in self._ids:
            raise Unauthenticated("The token was revoked.", "revoked")

    @property
    def ids(self) -> frozenset[str]:
        """Those that were read last."""
        return self._ids or frozenset()

    async def _watch(self) -> None:
        while True:
            try:
                found = await asyncio.to_thread(self._read)
            except (OSError, ValueError) as error:
                self._failed(getattr(error, "strerror", None) or str(error))
            except Exception:  # the boundary: a bug in one look must not keep revocations from coming into force
                _log.exception("bug", work="revoked tokens")
            else:
                self._fault = ""
                if found is not None:
                    self._ids = found
                    _log.info("revoked_tokens", issuer=self._name, file=str(self._path), tokens=len(found))
                    self.changed()
            await asyncio.sleep(LOOK_SECONDS)

    def _read(self) -> frozenset[str] | None:
        """The ids; None where the file is the one that was read before. Raises OSError and ValueError."""
        with open_regular(self._path) as file:
            status = os.fstat(file.fileno())
            stamp = (status.st_ino, status.st_size, status.st_mtime_ns)
            if stamp == self._stamp:
                return None
            if status.st_size > MAX_BYTES:
                raise ValueError(f"it has more than {MAX_BYTES} bytes")
            lines = with_pauses(iter(lambda: file.readline(MAX_LINE), b""))
            ids = frozenset(text for line in lines if (text := line.decode().strip()) and not text.startswith("#"))
        self._stamp = stamp
        return ids

    def _failed(self, reason: str) -> None:
        if reason != self._fault:
            self._fault = reason
            kept = None if self._ids is None else len(self._ids)
            _log.error("revoked_tokens_unreadable", issuer=self._name, file=str(self._path), problem=reason, kept=kept)
