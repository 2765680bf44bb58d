"""The certificate of both ports: read at the start, and again when its files change; open connections stay as they are."""

import asyncio
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import grpc
import structlog
from prometheus_client.core import GaugeMetricFamily, Metric

from lexora_router.config import Config
from lexora_router.config.models import ReloadConfig
from lexora_router.config.tls import TlsConfig
from lexora_router.config.tls_files import BadTlsFile, Pair, read_authorities, read_pair
from lexora_router.process.watched_files import WatchedFiles

# AEAD with forward secrecy only; TLS 1.3 has no others.
CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
_EXPIRY_SECONDS = 24 * 3600.0
_VERIFY = {"none": ssl.CERT_NONE, "optional": ssl.CERT_OPTIONAL, "required": ssl.CERT_REQUIRED}

_log = structlog.get_logger("lexora.tls")


@dataclass(frozen=True, slots=True)
class _Loaded:
    pair: Pair
    context: ssl.SSLContext
    grpc: grpc.ServerCertificateConfiguration


class ServerTls:
    """The certificate in force. Made from files: not inside an event loop that serves calls. Raises OSError (BadTlsFile)."""

    def __init__(self, config: TlsConfig) -> None:
        self.config = config
        self._files, self._loaded = _loaded(config)
        self._refused = False
        self._lock = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None

    def prepared(self, config: TlsConfig) -> Callable[[], None] | None:
        """What puts other files in force; None where they are the same ones. Reads files, as the constructor does."""
        if all(getattr(config, name) == getattr(self.config, name) for name in TlsConfig.FILES):
            return None
        files, loaded = _loaded(config)

        def adopt() -> None:
            self.config, self._files, self._loaded, self._refused = config, files, loaded, False
            self._log_loaded()

        return adopt

    def context(self) -> ssl.SSLContext:
        """For the next connection over HTTPS."""
        return self._loaded.context

    def switching_context(self) -> ssl.SSLContext:
        """For a server that keeps one context: each handshake takes the certificate that is in force by then."""
        context = _context(self.config)

        def switch(handshake: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
            handshake.context = self.context()

        context.sni_callback = switch  # called without a name as well
        return context

    def grpc_credentials(self) -> grpc.ServerCredentials:
        """For one gRPC port: each new connection asks again which certificate to show."""
        shown = self._loaded

        def newer() -> grpc.ServerCertificateConfiguration | None:
            """Asked by gRPC in a thread of its own; None: what the port has."""
            nonlocal shown
            if shown is self._loaded:
                return None
            shown = self._loaded
            return shown.grpc

        return grpc.dynamic_ssl_server_credentials(
            shown.grpc,
            newer,  # type: ignore[arg-type]  # None: no other than before
            require_client_authentication=self.config.grpc_requires,
        )

    def collect(self) -> Iterator[Metric]:
        """Two metrics."""
        yield GaugeMetricFamily(
            "lexora_tls_certificate_expiry_timestamp_seconds",
            "When the certificate of the ports ends, in seconds since 1970.",
            value=self._loaded.pair.expires.timestamp(),
        )
        yield GaugeMetricFamily(
            "lexora_tls_files_refused",
            "Whether the files of server.tls cannot be used, so that those that were loaded before stay in force.",
            value=float(self._refused),
        )

    def start(self, settings: Callable[[], ReloadConfig]) -> None:
        """Begin to watch the files, as often as `reload` has it."""
        self._task = asyncio.create_task(self._watch(settings), name="lexora-tls")

    async def close(self) -> None:
        """Watch no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def look(self) -> None:
        """Load the files if they have changed. Those that cannot be used change nothing, and cost one line of the log."""
        async with self._lock:
            if not await self._files.changed():
                return
            config = self.config
            try:
                loaded = await asyncio.to_thread(_load, config)
            except BadTlsFile as error:
                self._refused = True
                _log.error("tls_files_refused", key=f"server.tls.{error.key}", problem=str(error), kept="those loaded before")
            else:
                if config is self.config:  # a reload may have named other files meanwhile
                    self._loaded, self._refused = loaded, False
                    self._log_loaded()

    async def _watch(self, settings: Callable[[], ReloadConfig]) -> None:
        warned = asyncio.get_running_loop().time()  # the start has its own warning
        while True:
            await asyncio.sleep(settings().interval)
            if settings().watch:
                await self.look()
            if (now := asyncio.get_running_loop().time()) - warned > _EXPIRY_SECONDS:
                warned = now
                self._warn()

    def _log_loaded(self) -> None:
        _log.info("tls_files_loaded", expires=f"{self._loaded.pair.expires:%Y-%m-%d %H:%M}Z")
        self._warn()

    def _warn(self) -> None:
        if said := self._loaded.pair.expiry:
            _log.warning("tls_certificate", problem=f"server.tls.cert {said}")


def server_tls(config: Config) -> ServerTls | None:
    """What the ports show, by the configuration; None: they are in the clear. Raises OSError."""
    return ServerTls(config.server.tls) if config.server.tls.enabled else None


def _loaded(config: TlsConfig) -> tuple[WatchedFiles, _Loaded]:
    return WatchedFiles(config.files), _load(config)  # in this order: no change is missed


def _load(config: TlsConfig) -> _Loaded:
    assert config.cert is not None
    pair = read_pair(config.cert, config.key)
    authorities = None if config.client_ca is None else _as_ca(config.client_ca)
    context = _context(config)
    try:
        context.load_cert_chain(config.cert, config.key)
        if authorities is not None:
            context.load_verify_locations(cadata=authorities.decode("ascii", "replace"))
    except OSError as error:  # they were well a moment ago: changed meanwhile
        raise BadTlsFile("cert", f"cannot be used: {error.strerror}") from None
    made = grpc.ssl_server_certificate_configuration([(pair.key, pair.cert)], authorities)
    return _Loaded(pair, context, made)


def _context(config: TlsConfig) -> ssl.SSLContext:
    """The settings of every context, without a certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(CIPHERS)
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])
    context.verify_mode = _VERIFY[config.client_auth]
    return context


def _as_ca(file: str) -> bytes:
    try:
        return read_authorities(file)
    except BadTlsFile as error:
        raise BadTlsFile("client_ca", str(error)) from None
