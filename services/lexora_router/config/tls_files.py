"""Certificates and keys in files. `cryptography` reads them, which takes its time to load: only where there is TLS."""

import ssl
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from stat import S_IRWXO
from typing import TYPE_CHECKING

from lexora_router.config.regular_file import open_regular

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

MAX_BYTES = 2**20
EXPIRES_SOON_DAYS = 14


class BadTlsFile(OSError):
    """A file cannot be used. `key` is the one that names it: cert, key or ca; the message has nothing of the file."""

    def __init__(self, key: str, message: str) -> None:
        super().__init__(message)
        self.key = key


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate with its chain, and the private key that belongs to it, both PEM."""

    cert: bytes
    key: bytes = field(repr=False)
    expires: datetime

    @property
    def expiry(self) -> str:
        """What is to be said about its end; empty while there is time."""
        return expiry(self.expires)


def read_pair(cert_file: str, key_file: str | None) -> Pair:
    """Read a certificate and its key. Raises BadTlsFile."""
    from cryptography.hazmat.primitives.serialization import load_pem_private_key  # noqa: PLC0415 - only where there is TLS

    cert = _read(cert_file, "cert")
    leaf = certificates(cert, "cert")[0]
    where = "cert" if key_file is None else "key"
    pem = cert if key_file is None else _read(key_file, where)
    if b"PRIVATE KEY-----" not in pem:
        raise BadTlsFile(
            where,
            "has no private key: it must be a PEM file with one" if key_file else "has no private key: name its file with key",
        )
    try:
        key = load_pem_private_key(pem, None)
    except TypeError:
        raise BadTlsFile(
            where, "is encrypted, and a start cannot ask for the password: write it without one (openssl pkey -in OLD -out NEW)"
        ) from None
    except ValueError:
        raise BadTlsFile(where, "has a private key that cannot be read: it must be unencrypted PEM") from None
    if key.public_key() != leaf.public_key():
        raise BadTlsFile(where, "does not belong to the certificate: their public keys differ")
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert_file, key_file, password=_no_password)
    except OSError as error:
        raise BadTlsFile("cert", f"cannot be used: {reason_of(error)}") from None
    return Pair(cert, pem, leaf.not_valid_after_utc)


def read_authorities(file: str) -> bytes:
    """Read certificates that others are checked against. Raises BadTlsFile."""
    pem = _read(file, "ca")
    certificates(pem, "ca")
    return pem


def certificates(pem: bytes, key: str) -> "list[Certificate]":
    """The certificates in PEM, at least one. Raises BadTlsFile."""
    from cryptography.x509 import load_pem_x509_certificates  # noqa: PLC0415 - only where there is TLS

    try:
        return load_pem_x509_certificates(pem)
    except ValueError:
        raise BadTlsFile(key, "is no PEM file with certificates") from None


def expiry(end: datetime) -> str:
    """What is to be said about the end of a certificate; empty while more than EXPIRES_SOON_DAYS are left."""
    left = end - datetime.now(UTC)
    if left.total_seconds() <= 0:
        return f"has expired on {end:%Y-%m-%d %H:%M} UTC: clients refuse it"
    if left.days < EXPIRES_SOON_DAYS:
        return f"expires on {end:%Y-%m-%d %H:%M} UTC, in {left.days} days"
    return ""


def open_to_all(file: str) -> bool:
    """Whether every user of this machine may read a file, or change it."""
    try:
        return bool(Path(file).stat().st_mode & S_IRWXO)
    except OSError:
        return False


def reason_of(error: OSError) -> str:
    """What OpenSSL or the system says, without a path."""
    if isinstance(error, ssl.SSLError):
        return (error.reason or "OpenSSL refuses it").lower().replace("_", " ")
    return error.strerror or type(error).__name__


def _no_password() -> str:
    """OpenSSL would ask the terminal for one."""
    return ""


def _read(file: str, key: str) -> bytes:
    try:
        with open_regular(file) as stream:
            data = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise BadTlsFile(key, f"cannot be read: {error.strerror}") from None
    if len(data) > MAX_BYTES:
        raise BadTlsFile(key, f"is larger than {MAX_BYTES} bytes")
    return data
