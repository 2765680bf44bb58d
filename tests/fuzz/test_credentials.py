"""Made-up tokens and certificates over the wire, at HTTPS and gRPC: none opens more than it should, or breaks anything."""

import asyncio
import contextlib
import http.client
import json
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import jwt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from hypothesis import given
from hypothesis import strategies as st

from lexora.v1.principal_pb2 import GetPrincipalRequest
from tests.fuzz.conftest import LEAKED
from tests.fuzz.mutations import JSON, edited, revalued
from tests.support.engine import ScriptedEngine
from tests.support.issuer import AUDIENCE, Issuer, SigningKey, unsigned
from tests.support.queueing import Stub
from tests.support.servers import Gateway, calm_config
from tests.support.tls import HOST, Authority, Issued, write

pytestmark = pytest.mark.fuzz
REFUSED = {401, 429}  # 429: too many of them
REFUSED_CODES = {grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.RESOURCE_EXHAUSTED}
RULES: dict[str, dict[str, Any]] = {
    "spiffe://fleet/*": {"tenant": "fleet"},
    "*.people.example": {"tenant": "people"},
    "ops@people.example": {"tenant": "ops"},
    "plain.internal": {"tenant": "plain"},
}
CLAIMS = {"tenant": "org", "models": "models", "scopes": "scope", "rate": "limits.rate", "priority": "p", "name": "n"}


@dataclass
class Rig:
    gateway: Gateway
    issuer: Issuer
    authority: Authority
    folder: Path

    def context(self, shown: Issued | None = None) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(self.authority.ca))
        if shown is not None:
            context.load_cert_chain(*shown.paths())
        return context

    @property
    def ports(self) -> tuple[int, int]:
        return int(self.gateway.http.rpartition(":")[2]), int(self.gateway.grpc.rpartition(":")[2])

    def settled(self) -> None:
        """The process lives, and serves."""
        assert self.gateway.alive, self.gateway.output[-4000:]
        token = self.issuer.token(models=["*"], scope="lexora:call")
        connection = http.client.HTTPSConnection(HOST, self.ports[0], context=self.context(), timeout=20)
        with contextlib.closing(connection):
            connection.request("GET", "/v1/models", headers={"authorization": f"Bearer {token}"})
            assert connection.getresponse().status == 200
        assert "Traceback" not in self.gateway.output


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    folder = tmp_path_factory.mktemp("credentials")
    authority = Authority(folder)
    server = authority.issue("server")
    with ScriptedEngine("m") as engine, Issuer() as issuer:
        issuer.keys = [SigningKey("ES256", "first"), SigningKey("EdDSA", "second")]
        config = calm_config(main={"url": engine.url, "models": ["m"]})
        config["server"]["tls"] = {
            "cert": str(server.cert),
            "key": str(server.key),
            "client_ca": str(authority.ca),
            "client_auth": "optional",
            "grpc_client_auth": "required",
        }
        provider = issuer.provider(claims=CLAIMS, cooldown=0.01)
        config["auth"] = {"mode": "jwt", "jwt": [provider], "certificates": RULES}
        with Gateway(config, folder) as gateway:
            rig = Rig(gateway, issuer, authority, folder)
            rig.settled()
            yield rig
            rig.settled()


def tokens(issuer: Issuer) -> st.SearchStrategy[bytes]:
    """Signed ones with any claims, any claims with any header, and good ones with a few bytes changed."""
    claims = issuer.claims(models=["*"], scope="lexora:call", limits={"rate": 5}, p="low", n="x", nbf=0, iat=0)
    made = revalued([claims])
    signers = st.sampled_from([*issuer.keys, SigningKey("ES256", "first")])
    heads = st.sampled_from([{}, {"kid": None}, {"kid": "nowhere"}, {"kid": "x" * 300}, {"jku": issuer.url}, {"typ": "at+jwt"}])
    signed = st.tuples(signers, made, heads).map(lambda drawn: sign(*drawn))
    bare = st.tuples(JSON | st.just({"alg": "none"}), made.map(json.loads), st.binary(max_size=64)).map(
        lambda drawn: unsigned(*drawn)
    )
    seeds = [key.sign(claims).encode() for key in issuer.keys]
    return st.one_of(st.one_of(signed, bare).map(str.encode), edited(seeds, (b".", b"..", b"=", b"e30")))


def sign(key: SigningKey, claims: bytes, header: dict[str, Any]) -> str:
    """Signed claims of any kind: PyJWT's own encoder makes none that are odd."""
    heads = {name: value for name, value in ({"kid": key.kid} | header).items() if value is not None}
    return jwt.PyJWS().encode(claims, key.private, key.algorithm, heads)


def holds(issuer: Issuer, token: bytes) -> bool:
    """Whether PyJWT, which has no part in the product's own check, takes it for good."""
    for key in issuer.keys:
        with contextlib.suppress(jwt.PyJWTError, ValueError, TypeError):
            jwt.decode(
                token.decode("ascii"),
                key.private.public_key(),
                [key.algorithm],
                audience=AUDIENCE,
                issuer=issuer.url,
                leeway=60,
                options={"require": ["exp", "aud"], "verify_iat": False, "verify_jti": False},
            )
            return True
    return False


def test_no_token_is_let_in_that_does_not_hold(rig: Rig) -> None:
    headers = st.sampled_from(["authorization", "x-api-key", "api-key"])
    shown = rig.authority.issue("nobody", "no-rule.internal")
    pair = (shown.key.read_bytes(), shown.cert.read_bytes())
    credentials = grpc.ssl_channel_credentials(rig.authority.ca.read_bytes(), *pair)
    connection = http.client.HTTPSConnection(HOST, rig.ports[0], context=rig.context(), timeout=20)
    with contextlib.closing(connection), grpc.secure_channel(f"{HOST}:{rig.ports[1]}", credentials) as channel:
        stub = Stub(channel)

        @given(tokens(rig.issuer).filter(lambda token: not {*b"\r\n\0"} & {*token}), headers)
        def ask(token: bytes, header: str) -> None:
            value = b"Bearer " + token if header == "authorization" else token
            connection.request("GET", "/v1/models", headers={header: value})
            answer = connection.getresponse()
            said = answer.read()
            let_in = answer.status not in REFUSED | {400, 431}
            assert answer.status < 500, said
            assert not let_in or holds(rig.issuer, token), (token, said)
            assert not LEAKED.search(said.decode("utf-8", "replace"))
            assert not repeats(said, token)
            if not token.isascii() or not token.decode().isprintable():
                return
            code, details = over_grpc(stub, header, value.decode())
            assert code in REFUSED_CODES or (code is grpc.StatusCode.OK and holds(rig.issuer, token)), (token, details)
            assert not repeats(details.encode(), token)

        ask()
    rig.settled()


def over_grpc(stub: Any, header: str, value: str) -> tuple[grpc.StatusCode, str]:
    try:
        stub.GetPrincipal(GetPrincipalRequest(), metadata=((header, value),), timeout=20)
    except grpc.RpcError as error:
        return error.code(), str(error.details())  # type: ignore[attr-defined]
    return grpc.StatusCode.OK, ""


def repeats(said: bytes, token: bytes) -> bool:
    """Whether an answer has a part of the token in it."""
    return len(token) >= 40 and token[-40:] in said


LETTERS = st.text("abcABC012-_.*?/@:%", min_size=1, max_size=20)
HOSTS = st.sampled_from(["people.example", "PEOPLE.example", "fleet", "internal", "plain.internal", "spiffe://fleet/"])
NAMES = st.one_of(
    st.tuples(LETTERS, HOSTS).map("".join),
    st.tuples(HOSTS, LETTERS).map("".join),
    st.tuples(LETTERS, HOSTS).map(".".join),
    st.tuples(LETTERS, HOSTS).map("@".join),
    LETTERS.map("spiffe://fleet/{}".format),
)
# Names of a rule, and names of one kind that look like those of another.
LIKELY = st.sampled_from(["plain.internal", "a.people.example", "eve@a.people.example", "x://a.people.example"])
KINDS = st.sampled_from([x509.DNSName, x509.UniformResourceIdentifier, x509.RFC822Name])


class Certificates:
    """Signs certificates with any names; all have the same key, for that of each would take most of the time."""

    def __init__(self, authority: Authority, folder: Path) -> None:
        self._ca = x509.load_pem_x509_certificate(authority.ca.read_bytes())
        self._ca_key: Any = load_pem_private_key(authority.signing_key, None)
        self._key = ec.generate_private_key(ec.SECP256R1())
        secret = self._key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        self.file = Issued(folder / "made.crt", folder / "made.key", folder / "made.pem")
        write(self.file.key, secret)

    def sign(self, names: list[x509.GeneralName], subject: str) -> Issued:
        now = datetime.now(UTC)
        made = x509.CertificateBuilder(
            issuer_name=self._ca.subject,
            subject_name=x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, subject)]),
            public_key=self._key.public_key(),
            serial_number=x509.random_serial_number(),
            not_valid_before=now - timedelta(days=1),
            not_valid_after=now + timedelta(days=1),
        )
        if names:
            made = made.add_extension(x509.SubjectAlternativeName(names), critical=False)
        write(self.file.cert, made.sign(self._ca_key, hashes.SHA256()).public_bytes(Encoding.PEM))
        return self.file


def expected(names: list[x509.GeneralName]) -> bool:
    """Whether one of them is a name of a rule, of the rule's own kind."""
    for name in names:
        text = str(name.value)
        match name:
            case x509.UniformResourceIdentifier():
                found = text.startswith("spiffe://fleet/")
            case x509.DNSName():
                host = text.lower()
                found = not {*"@:/"} & {*host} and (host.endswith(".people.example") or host == "plain.internal")
            case _:
                found = text == "ops@people.example"
        if found:
            return True
    return False


def test_no_certificate_is_taken_for_another_one(rig: Rig) -> None:
    certificates = Certificates(rig.authority, rig.folder)
    drawn = st.lists(st.tuples(KINDS, NAMES | LIKELY), max_size=3)

    @given(drawn, st.sampled_from(["x", "plain.internal", "a.people.example"]))
    def ask(pairs: list[tuple[type[x509.GeneralName], str]], subject: str) -> None:
        names: list[x509.GeneralName] = []
        for kind, text in pairs:
            with contextlib.suppress(ValueError):  # what no certificate can have
                names.append(kind(text))  # type: ignore[call-arg]
        context = rig.context(certificates.sign(names, subject))
        with contextlib.closing(http.client.HTTPSConnection(HOST, rig.ports[0], context=context, timeout=20)) as connection:
            try:
                connection.request("GET", "/v1/models")
                status = connection.getresponse().status
            except ssl.SSLError:
                status = 401  # OpenSSL itself finds a name in it that cannot be
        assert status == (200 if expected(names) else 401), (status, names, subject)

    ask()
    rig.settled()


def hello() -> bytes:
    """The first bytes of a client that speaks TLS."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = ssl.create_default_context().wrap_bio(incoming, outgoing, server_hostname=HOST)
    with contextlib.suppress(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


def test_no_bytes_of_a_handshake_end_the_process(rig: Rig) -> None:
    first = hello()
    seeds = [first, first[:5], first + first, first + bytes(range(256))]
    records = edited(seeds, (b"\x16\x03\x01", b"\x15\x03", b"\x17"))

    @given(records, st.sampled_from(rig.ports))
    def ask(data: bytes, port: int) -> None:
        with (
            socket.create_connection(("127.0.0.1", port), 20) as connection,
            contextlib.suppress(OSError),
        ):  # it was ended already
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(65536):
                pass

    ask()
    rig.settled()


async def test_tokens_and_certificates_at_once(rig: Rig) -> None:
    """Many of them at the same time leave nothing behind that a later one finds."""
    good = rig.issuer.token(models=["*"], scope="lexora:call", sub="good")
    bad = SigningKey("ES256", "first").sign(rig.issuer.claims(models=["*"], scope="lexora:call"))
    certificates = Certificates(rig.authority, rig.folder)
    contexts = [rig.context(), rig.context(certificates.sign([x509.DNSName("plain.internal")], "x"))]

    def status(number: int) -> tuple[int, bool]:
        token, context = (good, bad)[number % 2], contexts[number // 2 % 2]
        with contextlib.closing(http.client.HTTPSConnection(HOST, rig.ports[0], context=context, timeout=20)) as connection:
            connection.request("GET", "/v1/models", headers={"authorization": f"Bearer {token}"})
            return connection.getresponse().status, token is good

    found = await asyncio.gather(*(asyncio.to_thread(status, number) for number in range(40)))
    assert all((answer == 200) == is_good for answer, is_good in found), found
