from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography.hazmat.primitives import serialization
from tests.support.tls import Authority, write

from lexora_router.config.load import ConfigError, load


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def said(tmp_path: Path, authority: Authority) -> Callable[..., tuple[str, ...]]:
    """Problems of a configuration with this `server.tls`, or its warnings where it can be used; without its file's name."""

    def read(**tls: Any) -> tuple[str, ...]:
        file = tmp_path / "c.yaml"
        file.write_text(yaml.safe_dump({"server": {"tls": {name: str(value) for name, value in tls.items()}}}))
        try:
            found = load(str(file), {}).warnings
        except ConfigError as error:
            found = tuple(map(str, error.problems))
        return tuple(line.split(": ", 1)[1] for line in found)

    return read


def encrypted(key: Path) -> Path:
    made = serialization.load_pem_private_key(key.read_bytes(), None)
    form = serialization
    secret = form.BestAvailableEncryption(b"word")
    key.write_bytes(made.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, secret))
    return key


def test_a_good_pair_has_nothing_to_say(said: Callable[..., tuple[str, ...]], authority: Authority) -> None:
    pair = authority.issue("server")
    assert said(cert=pair.cert, key=pair.key) == ()
    assert said(cert=pair.both) == ()
    assert said(cert=pair.cert, key=pair.key, client_ca=authority.ca, client_auth="required") == ()


def test_files_that_cannot_be_used(said: Callable[..., tuple[str, ...]], authority: Authority, tmp_path: Path) -> None:
    pair, other, locked = (authority.issue(name) for name in ("server", "other", "locked"))
    text = tmp_path / "text.pem"
    text.write_text("secret words")
    large = tmp_path / "large.pem"
    large.write_bytes(b"x" * 2**21)
    gone = tmp_path / "gone.pem"
    cases: list[tuple[dict[str, Path], str]] = [
        ({"cert": gone, "key": pair.key}, "server.tls.cert: cannot be read: No such file or directory"),
        ({"cert": tmp_path, "key": pair.key}, "server.tls.cert: cannot be read: Is a directory"),
        ({"cert": text, "key": pair.key}, "server.tls.cert: is no PEM file with certificates"),
        ({"cert": large, "key": pair.key}, "server.tls.cert: is larger than 1048576 bytes"),
        ({"cert": pair.cert, "key": gone}, "server.tls.key: cannot be read: No such file or directory"),
        ({"cert": pair.cert, "key": text}, "server.tls.key: has no private key: it must be a PEM file with one"),
        ({"cert": pair.cert}, "server.tls.cert: has no private key: name its file with key"),
        (
            {"cert": pair.cert, "key": other.key},
            "server.tls.key: does not belong to the certificate: their public keys differ",
        ),
        (
            {"cert": locked.cert, "key": encrypted(locked.key)},
            "server.tls.key: is encrypted, and a start cannot ask for the password: "
            "write it without one (openssl pkey -in OLD -out NEW)",
        ),
    ]
    for tls, problem in cases:
        assert said(**tls) == (problem,)
    write(text, b"-----BEGIN PRIVATE KEY-----\nc2VjcmV0IHdvcmRz\n-----END PRIVATE KEY-----\n")
    broken = said(cert=pair.cert, key=text)
    assert broken == ("server.tls.key: has a private key that cannot be read: it must be unencrypted PEM",)
    assert said(cert=pair.cert, key=pair.key, client_ca=gone, client_auth="optional") == (
        "server.tls.client_ca: cannot be read: No such file or directory",
    )


def test_keys_that_need_another(said: Callable[..., tuple[str, ...]], authority: Authority) -> None:
    pair, ca = authority.issue("server"), authority.ca
    needs = "needs server.tls.cert, the certificate that this server shows"
    assert said(key=pair.key)[0] == f"server.tls.key: {needs}"
    assert f"server.tls.client_auth: {needs}" in said(client_ca=ca, client_auth="required")
    both = {"cert": pair.cert, "key": pair.key}
    asks = "needs server.tls.client_ca, which signs the certificates of clients"
    assert said(**both, client_auth="required") == (f"server.tls.client_auth: {asks}",)
    assert said(**both, grpc_client_auth="required") == (f"server.tls.grpc_client_auth: {asks}",)
    useless = "server.tls.client_ca: has no effect: set server.tls.client_auth to optional or required"
    assert said(**both, client_ca=ca) == (useless,)


def test_what_works_and_is_probably_not_meant(said: Callable[..., tuple[str, ...]], authority: Authority) -> None:
    soon, over = authority.issue("soon", days=10.5), authority.issue("over", days=-1)
    [line] = said(cert=soon.cert, key=soon.key)
    assert line.startswith("server.tls.cert: expires on ")
    assert line.endswith(" UTC, in 10 days")
    assert "has expired on " in said(cert=over.cert, key=over.key)[0]
    pair = authority.issue("server")
    pair.key.chmod(0o644)
    readable = "the private key may be read by every user of this machine: chmod o-rwx"
    assert said(cert=pair.cert, key=pair.key) == (f"server.tls.key: {readable}",)
    pair.key.chmod(0o640)
    [line] = said(cert=pair.cert, key=pair.key, client_ca=authority.ca, client_auth="optional")
    assert "gRPC clients are not asked for a certificate" in line
    quiet = said(cert=pair.cert, key=pair.key, client_ca=authority.ca, client_auth="optional", grpc_client_auth="none")
    assert quiet == ()


def test_tls_to_engines(tmp_path: Path, authority: Authority) -> None:
    pair, other = authority.issue("gateway"), authority.issue("other")

    def read(**keys: Any) -> tuple[str, ...]:
        file = tmp_path / "c.yaml"
        file.write_text(yaml.safe_dump({"routing": {"backends": {"a": {"url": "https://a:1"} | keys}}}))
        try:
            found = load(str(file), {}).warnings
        except ConfigError as error:
            found = tuple(map(str, error.problems))
        return tuple(line.partition("routing.backends.a.")[2] for line in found)

    good = {"client_cert": str(pair.cert), "client_key": str(pair.key)}
    assert read(**good, ca_file=str(authority.ca), server_name="engine.internal") == ()
    assert read(client_cert=str(pair.both)) == ()
    differ = ("client_key: does not belong to the certificate: their public keys differ",)
    assert read(client_cert=str(pair.cert), client_key=str(other.key)) == differ
    assert read(client_key=str(pair.key)) == ("client_key: needs client_cert, the certificate that it belongs to",)
    assert read(verify=False, ca_file=str(authority.ca)) == ("ca_file: has no effect with verify: false",)
    unchecked = "verify: the certificate is not checked: whatever answers there is believed, and gets the key and all prompts"
    assert read(verify=False) == (unchecked,)
    no_effect = ("client_cert: has no effect: no address of the backend is https",)
    assert read(**good, url="http://a:1") == no_effect
