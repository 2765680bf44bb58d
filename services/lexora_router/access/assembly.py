"""How callers are let in under one configuration: what is asked of them, and what is kept up to date for that."""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

from lexora_router.access.access import Access, OpenAccess
from lexora_router.access.audit import ELSEWHERE, AuditLog
from lexora_router.access.authenticator import Authenticator, Failures
from lexora_router.access.certificates import CertificateNames
from lexora_router.access.forwarders import Forwarders
from lexora_router.access.key_source import KeyStore
from lexora_router.access.keys import Keys
from lexora_router.access.operators import Operators
from lexora_router.access.watched_keys import WatchedKeys
from lexora_router.config import Config
from lexora_router.config.jwt import JwtProvider
from lexora_router.policy.callers import TrustedProxies

if TYPE_CHECKING:
    from lexora_router.access.jwt.tokens import Tokens


class AccessAssembly:
    """The access of one configuration. A reload makes a new one, which takes over what stays the same of `previous`.

    The constructor reads files: not for an event loop that serves. `start` it in the loop, then `retire` it for the next one.
    `shared` are the keys that replicas share, if `auth.keys` has some. Raises KeyFileError for keys that cannot be read; then
    nothing has changed.
    """

    def __init__(
        self,
        config: Config,
        failures: Failures,
        audit: AuditLog,
        previous: "AccessAssembly | None" = None,
        *,
        shared: KeyStore | None = None,
    ) -> None:
        auth = config.auth
        self._file = _watched(Path(auth.keys_file), audit, previous) if auth.takes_keys and "file" in auth.keys else None
        self.keys = _together(self._file, shared if auth.takes_keys else None)
        self.access: Access = OpenAccess()
        self.tokens = _tokens(auth.jwt, previous) if auth.tokens else None
        self._task: asyncio.Task[None] | None = None
        self.forwarders: Forwarders | None = None
        if auth.enabled:
            proxies = TrustedProxies(config.server.trusted_proxies)
            keys = None if self.keys is None else Keys(self.keys)
            certificates = CertificateNames(auth.certificates) if auth.certificates else None
            self.forwarders = Forwarders(keys=keys, certificates=certificates, networks=auth.forwarded)
            self.access = Authenticator(
                keys=keys,
                tokens=self.tokens,
                certificates=certificates,
                failures=failures,
                operators=Operators(config.admin.allow, proxies) if config.admin.allow else None,
                proxies=proxies,
            )

    def start(self) -> None:
        """Begin to follow the file of keys, and the keys of issuers."""
        if self.keys is not None:
            self._task = asyncio.create_task(self.keys.watch(), name="lexora-keys")
        if self.tokens is not None:
            self.tokens.start()

    async def read_file(self) -> None:
        """Read the file of keys now: another process of this gateway has edited it, and has written that down."""
        if self._file is not None:
            await self._file.refresh(ELSEWHERE)

    async def retire(self, successor: "AccessAssembly | None" = None) -> None:
        """Follow them no more, but for what a successor has taken over."""
        if self.tokens is not None:
            await self.tokens.stop(None if successor is None else successor.tokens)
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)


def _tokens(providers: tuple[JwtProvider, ...], previous: AccessAssembly | None) -> "Tokens":
    from lexora_router.access.jwt.tokens import Tokens  # noqa: PLC0415 - cryptography and httpx: a tenth of a start

    return Tokens(providers, None if previous is None else previous.tokens)


def _together(file: KeyStore | None, shared: KeyStore | None) -> KeyStore | None:
    if file is None or shared is None:
        return shared if file is None else file  # not `or`: one without keys is false
    from lexora_router.access.several_keys import SeveralKeys  # noqa: PLC0415 - off is free

    return SeveralKeys(file, shared)


def _watched(path: Path, audit: AuditLog, previous: AccessAssembly | None) -> WatchedKeys:
    kept = previous._file if previous is not None else None
    return kept if kept is not None and kept.path == path else WatchedKeys(path, audit)
