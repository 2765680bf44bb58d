"""How TLS to an engine is spoken: whom to trust, and what to show."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class EngineTls:
    """Files are PEM. `server_name` stands for the host of the address, in SNI and in what the certificate must be for."""

    ca_file: str | None = None  # None: the system's authorities
    client_cert: str | None = None
    client_key: str | None = None  # None: in `client_cert`
    verify: bool = True
    server_name: str | None = None

    @property
    def files(self) -> tuple[str, ...]:
        """Every file that is named."""
        return tuple(file for file in (self.ca_file, self.client_cert, self.client_key) if file is not None)
