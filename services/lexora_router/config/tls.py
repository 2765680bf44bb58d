"""The certificates that the ports show, and those that they ask clients for."""

from typing import ClassVar, Literal, Self

from pydantic import model_validator

from lexora_router.config.check import tls_faults
from lexora_router.config.section import Section, refuse
from lexora_router.config.values import Seconds, Text


class TlsConfig(Section):
    """TLS of the HTTP and of the gRPC port; without `cert` both are in the clear."""

    FILES: ClassVar = ("cert", "key", "client_ca")

    cert: Text | None = None  # PEM, the server's own certificate first
    key: Text | None = None  # None: in `cert`
    client_ca: Text | None = None  # PEM: the authorities that sign those of clients
    client_auth: Literal["none", "optional", "required"] = "none"
    grpc_client_auth: Literal["none", "required"] | None = None  # None: as client_auth, where that is not optional
    handshake_timeout: Seconds = 10.0

    @property
    def enabled(self) -> bool:
        """Whether the ports speak TLS."""
        return self.cert is not None

    @property
    def files(self) -> tuple[str, ...]:
        """Every file that is named."""
        return tuple(dict.fromkeys(file for file in (self.cert, self.key, self.client_ca) if file is not None))

    @property
    def grpc_requires(self) -> bool:
        """Whether a gRPC client must show a certificate. grpcio cannot ask for one that may be left out."""
        return (self.grpc_client_auth or self.client_auth) == "required"

    @model_validator(mode="after")
    def _cross_check(self) -> Self:
        refuse(tls_faults(self.model_dump()))
        return self
