"""TLS to the store, made anew when its files change: a certificate that was renewed is shown with the next connection."""

import ssl
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Security:
    """Files of TLS, PEM. None for `ca`: the system's authorities; None for `key`: it is in `cert`."""

    ca: str | None = None
    cert: str | None = None
    key: str | None = None


USUAL = Security()


class TlsContext:
    """The context of connections. To read the system's authorities takes tens of milliseconds: it is done once."""

    def __init__(self, security: Security) -> None:
        self._security = security
        self._context: ssl.SSLContext | None = None
        self._times: tuple[float, ...] = ()

    def current(self) -> ssl.SSLContext:
        """A context with the files as they are now. Raises OSError for what cannot be used."""
        files = self._security
        times = tuple(Path(file).stat().st_mtime for file in (files.ca, files.cert, files.key) if file is not None)
        if self._context is None or times != self._times:
            self._context, self._times = _made(files), times
        return self._context


def _made(files: Security) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # it checks the certificate and its name
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if files.ca is None:
        context.load_default_certs()
    else:
        context.load_verify_locations(files.ca)
    if files.cert is not None:
        context.load_cert_chain(files.cert, files.key)
    return context
