"""The files that the way of a facade to its router is secured with: read again when they change."""

import asyncio
from collections.abc import Callable

import structlog
from grpc import ChannelCredentials

from lexora_cli.reach import Reach
from lexora_router.config.tls_files import read_authorities, read_pair
from lexora_router.process.watched_files import WatchedFiles

_log = structlog.get_logger("lexora.tls")


class RouterCertificates:
    """Made before they are read for the first time, so that no change is missed."""

    def __init__(self, reach: Reach) -> None:
        self._reach = reach
        self._files = WatchedFiles(reach.files)

    async def look(self, renew: Callable[[ChannelCredentials], None]) -> None:
        """Give new credentials to `renew` if the files have changed. Those that cannot be used cost a line of the log."""
        if not self._reach.files or not await self._files.changed():
            return
        try:
            credentials = await asyncio.to_thread(_checked, self._reach)
        except (OSError, ValueError) as error:
            _log.error("router_tls_refused", problem=str(error), kept="those loaded before")
        else:
            renew(credentials)
            _log.info("router_tls_loaded")


def _checked(reach: Reach) -> ChannelCredentials:
    """Raises OSError (BadTlsFile) and ValueError; grpc itself would find a fault at the first call only."""
    if reach.ca is not None:
        read_authorities(reach.ca)
    if reach.cert is not None:
        read_pair(reach.cert, reach.key)
    return reach.read()
