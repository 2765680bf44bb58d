"""A real little issuer of tokens on loopback, over HTTP or HTTPS, that can rotate its keys, be slow, lie and go away."""

import base64
import json
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import jwt
import trustme
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

AUDIENCE = "lexora"
_MAKERS: dict[str, tuple[Callable[[], Any], Any]] = {
    "RS256": (lambda: rsa.generate_private_key(65537, 2048), RSAAlgorithm),
    "ES256": (lambda: ec.generate_private_key(ec.SECP256R1()), ECAlgorithm),
    "EdDSA": (ed25519.Ed25519PrivateKey.generate, OKPAlgorithm),
}

Answer = tuple[int, dict[str, str], Iterator[bytes]]


class SigningKey:
    """A private key with its id."""

    def __init__(self, algorithm: str, kid: str) -> None:
        make, self._form = _MAKERS[algorithm]
        self.algorithm, self.kid, self.private = algorithm, kid, make()

    def jwk(self, **members: Any) -> dict[str, Any]:
        public = json.loads(self._form.to_jwk(self.private.public_key()))
        return {**public, "kid": self.kid, "use": "sig", "alg": self.algorithm} | members

    def sign(self, claims: dict[str, Any], **header: Any) -> str:
        headers = {name: value for name, value in ({"kid": self.kid} | header).items() if value is not None}
        return jwt.encode(claims, self.private, self.algorithm, headers)


class Issuer:
    """`url` is its address; `asked` counts what it was asked for. `answer`, where set, gives all its answers instead."""

    def __init__(self, *, ca: trustme.CA | None = None, port: int = 0) -> None:
        self.keys = [SigningKey("ES256", "first")]
        self.asked: Counter[str] = Counter()
        self.answer: Callable[[str], Answer] | None = None
        self._ca = ca
        self._server: ThreadingHTTPServer | None = None
        self._port = port
        self.start()
        self.url = f"{'https' if ca else 'http'}://127.0.0.1:{self._port}"

    def start(self) -> None:
        """Listen, again at the same port."""
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                issuer.asked[self.path] += 1
                status, headers, pieces = (issuer.answer or issuer.usual)(self.path)
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                try:
                    for piece in pieces:
                        self.wfile.write(piece)
                except OSError:
                    pass  # it had enough

            def log_message(self, *_: Any) -> None:
                pass

        self._server = server = ThreadingHTTPServer(("127.0.0.1", self._port), Handler)
        server.daemon_threads = True
        self._port = server.server_address[1]
        if self._ca is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._ca.issue_cert("127.0.0.1").configure_cert(context)
            server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def stop(self) -> None:
        """Refuse connections."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def __enter__(self) -> "Issuer":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def usual(self, path: str) -> Answer:
        documents = {
            "/jwks": self.jwks(),
            "/.well-known/openid-configuration": {"issuer": self.url, "jwks_uri": f"{self.url}/jwks"},
        }
        found = documents.get(path)
        if found is None:
            return 404, {"content-length": "0"}, iter(())
        return document(found)

    def jwks(self) -> dict[str, Any]:
        return {"keys": [key.jwk() for key in self.keys]}

    def claims(self, **claims: Any) -> dict[str, Any]:
        """Claims that hold for ten minutes; None takes one away."""
        usual = {"iss": self.url, "aud": AUDIENCE, "sub": "alice", "exp": int(time.time()) + 600, "org": "acme"} | claims
        return {name: value for name, value in usual.items() if value is not None}

    def token(self, key: SigningKey | None = None, **claims: Any) -> str:
        return (key or self.keys[0]).sign(self.claims(**claims))

    def provider(self, **settings: Any) -> dict[str, Any]:
        """The section of `auth.jwt` for this issuer."""
        usual = {
            "issuer": self.url,
            "audience": [AUDIENCE],
            "jwks_url": f"{self.url}/jwks",
            "allow_http": self._ca is None,
            "allow_private": True,
            "claims": {"tenant": "org"},
        }
        return {name: value for name, value in (usual | settings).items() if value is not None}


def document(content: Any) -> Answer:
    body = json.dumps(content).encode()
    return 200, {"content-type": "application/json", "content-length": str(len(body))}, iter([body])


def unsigned(header: dict[str, Any], claims: dict[str, Any], signature: bytes = b"x") -> str:
    """A token with any header and signature at all."""
    parts = [json.dumps(header).encode(), json.dumps(claims).encode(), signature]
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)


def authority(folder: Path) -> tuple[trustme.CA, str]:
    """An authority of our own, and the file with its certificate."""
    ca = trustme.CA()
    file = folder / "ca.pem"
    ca.cert_pem.write_to_path(str(file))
    return ca, str(file)
