"""Certificates that engines are checked against, and those that they are shown: loaded again when their files change."""

import asyncio
import ssl
from collections.abc import Callable, Iterable

import structlog

from lexora_router.config.engine_tls import EngineTls
from lexora_router.config.tls_files import BadTlsFile, read_authorities, read_pair
from lexora_router.engines.tls import tls_context
from lexora_router.fleet.backend import Backend
from lexora_router.process.watched_files import WatchedFiles

_log = structlog.get_logger("lexora.tls")


class EngineCertificates:
    """Looks at the files of all backends that have an https address."""

    def __init__(self, backends: Callable[[], Iterable[Backend]]) -> None:
        self._backends = backends
        self._watched: dict[EngineTls, WatchedFiles] = {}
        self.note()

    def note(self) -> None:
        """Watch the files of the backends that there are now."""
        named = {backend.config.tls for backend in self._backends() if backend.config.secured and backend.config.tls.files}
        self._watched = {tls: self._watched.get(tls) or WatchedFiles(tls.files) for tls in named}

    async def look(self) -> None:
        """Load what has changed. Files that cannot be used change nothing, and cost one line of the log."""
        self.note()
        for settings, files in list(self._watched.items()):
            if not await files.changed():
                continue
            using = [backend for backend in self._backends() if backend.config.tls == settings]
            names = ", ".join(backend.name for backend in using)
            try:
                context = await asyncio.to_thread(_checked, settings)
            except OSError as error:
                key = {"cert": "client_cert", "key": "client_key", "ca": "ca_file"}.get(getattr(error, "key", ""))
                _log.error("engine_tls_refused", backend=names, key=key, problem=str(error), kept="those loaded before")
                continue
            for backend in using:
                backend.transport.renew(context)
            _log.info("engine_tls_loaded", backend=names)


def _checked(settings: EngineTls) -> ssl.SSLContext:
    if settings.ca_file is not None:
        read_authorities(settings.ca_file)
    if settings.client_cert is not None:
        read_pair(settings.client_cert, settings.client_key)
    try:
        return tls_context(settings)
    except OSError as error:  # it was well a moment ago
        raise BadTlsFile("cert", f"cannot be used: {error.strerror}") from None
