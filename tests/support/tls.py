"""A certificate authority of a test's own, and what it signs, in files."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import trustme

HOST = "localhost"


@dataclass(frozen=True)
class Issued:
    """A certificate with its chain, and its key; `both` has them in one file."""

    cert: Path
    key: Path
    both: Path

    def paths(self) -> tuple[str, str]:
        return str(self.cert), str(self.key)


class Authority:
    """`ca` is its own certificate; `issue` signs others. All files are in `folder`."""

    def __init__(self, folder: Path, name: str = "ca") -> None:
        self._folder = folder
        self._ca = trustme.CA(organization_name=name)
        self.ca = folder / f"{name}.pem"
        self._ca.cert_pem.write_to_path(str(self.ca))

    def issue(self, name: str, *identities: str, days: float = 300) -> Issued:
        """Sign a new certificate for DNS names, addresses, or emails; files of that name are replaced, as certbot does."""
        made = self._ca.issue_cert(*(identities or (HOST, "127.0.0.1")), not_after=datetime.now(UTC) + timedelta(days=days))
        return self.written(name, b"".join(blob.bytes() for blob in made.cert_chain_pems), made.private_key_pem.bytes())

    @property
    def signing_key(self) -> bytes:
        return self._ca.private_key_pem.bytes()

    def written(self, name: str, chain: bytes, key: bytes) -> Issued:
        found = Issued(*(self._folder / f"{name}{ending}" for ending in (".crt", ".key", ".pem")))
        for path, data in ((found.cert, chain), (found.key, key), (found.both, key + chain)):
            write(path, data)
        return found


def write(path: Path, data: bytes) -> None:
    """Replace a file in one step; of its owner alone."""
    fresh = path.with_name(f"{path.name}.new")
    fresh.write_bytes(data)
    fresh.chmod(0o600)
    fresh.replace(path)


def uri_certificate(authority: "Authority", name: str, uri: str) -> Issued:
    """A client's certificate with a URI alone, as SPIFFE has them; trustme has no URIs."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    ca = x509.load_pem_x509_certificate(authority.ca.read_bytes())
    ca_key = serialization.load_pem_private_key(authority.signing_key, None)
    assert isinstance(ca_key, ec.EllipticCurvePrivateKey)
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(ca.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri)]), critical=True)
        .sign(ca_key, hashes.SHA256())
    )
    form = serialization
    secret = key.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption())
    return authority.written(name, made.public_bytes(form.Encoding.PEM), secret)
