"""TLS to the engines of one backend: made when it is first needed, and again when its files have changed."""

import ssl

from lexora_router.config.engine_tls import EngineTls


class EngineSecurity:
    """What connections to one backend are made with; calling it gives the settings for the next one. Raises OSError."""

    def __init__(self, settings: EngineTls, context: ssl.SSLContext | None = None) -> None:
        self.settings = settings
        self._context = context

    @property
    def server_name(self) -> str | None:
        """What the certificate must be for, where that is not the host of the address."""
        return self.settings.server_name

    def __call__(self) -> ssl.SSLContext:
        """The settings for the next connection."""
        if self._context is None:
            self._context = tls_context(self.settings)
        return self._context

    def renew(self, context: ssl.SSLContext) -> None:
        """Make connections with this from now on; those that are open stay."""
        self._context = context


def tls_context(settings: EngineTls) -> ssl.SSLContext:
    """TLS 1.2 or newer. Raises OSError.

    Reading the system's authorities takes some 50 ms: not for an event loop that serves calls.
    """
    context = ssl.create_default_context(cafile=settings.ca_file)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    if not settings.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if settings.client_cert is not None:
        context.load_cert_chain(settings.client_cert, settings.client_key, password=lambda: "")
    return context
