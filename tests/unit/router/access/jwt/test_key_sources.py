"""The keys' address against a real issuer on loopback that is slow, large, lying, or somewhere else."""

import itertools
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.issuer import Answer, Issuer, authority, document

from lexora_router.access.jwt.key_cache import CannotRead
from lexora_router.access.jwt.key_set import UnusableKeys
from lexora_router.access.jwt.key_sources import is_public, reader_of
from lexora_router.config.jwt import JwtProvider


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    with Issuer() as started:
        yield started


async def ids(issuer: Issuer, **settings: Any) -> list[str]:
    keys = await reader_of(JwtProvider(**issuer.provider(**settings)))()
    assert keys is not None
    return [key.id for key in keys.keys]


async def test_keys_from_an_address_and_by_discovery(issuer: Issuer) -> None:
    assert await ids(issuer) == ["first"]
    assert await ids(issuer, jwks_url=None, discovery=True) == ["first"]
    assert issuer.asked == {"/jwks": 2, "/.well-known/openid-configuration": 1}


async def test_https_with_an_authority_of_its_own(tmp_path: Path) -> None:
    ca, file = authority(tmp_path)
    with Issuer(ca=ca) as issuer:
        assert await ids(issuer, ca_file=file) == ["first"]
        with pytest.raises(CannotRead, match="CERTIFICATE_VERIFY_FAILED"):
            await ids(issuer)
        # The certificate must be for the name, not for the address that the name has.
        with pytest.raises(CannotRead, match="CERTIFICATE_VERIFY_FAILED"):
            await ids(issuer, ca_file=file, jwks_url=issuer.url.replace("127.0.0.1", "localhost") + "/jwks")
        with pytest.raises(CannotRead, match="ca_file"):
            await ids(issuer, ca_file=str(tmp_path / "none.pem"))


async def test_private_addresses_are_refused_before_anything_is_sent(issuer: Issuer) -> None:
    for url in (
        issuer.url,
        issuer.url.replace("127.0.0.1", "localhost"),
        issuer.url.replace("127.0.0.1", "[::ffff:127.0.0.1]"),
    ):
        with pytest.raises(CannotRead, match="private address"):
            await ids(issuer, jwks_url=f"{url}/jwks", allow_private=False)
    assert not issuer.asked


@pytest.mark.parametrize(
    "address",
    [
        *("10.0.0.1", "127.0.0.1", "169.254.169.254", "100.64.0.1", "192.168.1.1", "0.0.0.0", "224.0.0.1"),
        *("::1", "::", "fe80::1%eth0", "fd00:ec2::254", "ff02::1"),
        *("::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe", "2002:7f00:1::1"),
    ],
)
def test_no_private_address_passes_in_any_spelling(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", ["1.1.1.1", "2606:4700:4700::1111", "64:ff9b::101:101"])
def test_public_addresses_pass(address: str) -> None:
    assert is_public(address)


def redirect(to: str) -> Answer:
    return 302, {"location": to, "content-length": "0"}, iter(())


async def test_redirects_are_not_followed(issuer: Issuer) -> None:
    with Issuer() as other:
        issuer.answer = lambda _: redirect(f"{other.url}/jwks")
        with pytest.raises(CannotRead, match=r"answered 302 \(redirects are not followed"):
            await ids(issuer)
        assert not other.asked


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ((500, {"content-length": "0"}, []), "answered 500"),
        ((200, {}, [b" " * 1024] * 600), "more than 512 KiB"),
        ((200, {}, itertools.repeat(b" " * 65536)), "more than 512 KiB"),
        ((200, {"content-encoding": "gzip"}, [b"x"]), "content coding"),
        ((200, {}, [b'{"keys": [']), "not JSON"),
        ((200, {}, []), "not JSON"),
    ],
)
async def test_an_answer_that_is_no_key_set_says_why(issuer: Issuer, answer: Any, said: str) -> None:
    issuer.answer = lambda _: (answer[0], answer[1], iter(answer[2]))
    with pytest.raises((CannotRead, UnusableKeys), match=said):
        await ids(issuer)


async def test_a_slow_answer_has_one_bound_in_all(issuer: Issuer) -> None:
    issuer.answer = lambda _: (200, {}, drip())
    with pytest.raises(CannotRead, match=r"no answer within 0.3 s"):
        await ids(issuer, timeout=0.3)


def drip() -> Iterator[bytes]:
    import time

    for _ in range(1000):
        time.sleep(0.02)  # shorter than any timeout between two pieces
        yield b" "


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ({"issuer": "https://other.example", "jwks_uri": "x"}, "another issuer's"),
        ({"issuer": "", "jwks_uri": "x"}, "another issuer's"),
        ({}, "no jwks_uri"),
        ([], "no jwks_uri"),
    ],
)
async def test_a_discovery_document_of_another_issuer_is_refused(issuer: Issuer, found: Any, said: str) -> None:
    issuer.answer = lambda _: document(found)
    with pytest.raises(CannotRead, match=said):
        await ids(issuer, jwks_url=None, discovery=True)


@pytest.mark.parametrize(
    "uri",
    [
        "http://127.0.0.1:1/jwks",
        "file:///etc/passwd",
        "https://[/",
        "gopher://x",
        "https://ü.example/",
        "https://u:p@127.0.0.1/",
    ],
)
async def test_an_address_out_of_a_discovery_document_is_checked_as_any_other(tmp_path: Path, uri: str) -> None:
    ca, file = authority(tmp_path)
    with Issuer(ca=ca) as issuer:
        issuer.answer = lambda _: document({"issuer": issuer.url, "jwks_uri": uri})
        with pytest.raises(CannotRead, match=r"https://|malformed"):
            await ids(issuer, jwks_url=None, discovery=True, ca_file=file)


async def test_environment_proxies_are_not_used(issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    assert await ids(issuer) == ["first"]


async def test_an_issuer_that_is_gone_says_so(issuer: Issuer) -> None:
    issuer.stop()
    with pytest.raises(CannotRead, match="cannot connect"):
        await ids(issuer)
    with pytest.raises(CannotRead, match="no address"):
        await ids(issuer, jwks_url="http://nowhere.invalid/jwks")


async def test_a_file_is_read_again_only_when_it_has_changed(issuer: Issuer, tmp_path: Path) -> None:
    file = tmp_path / "jwks.json"
    read = reader_of(JwtProvider(**issuer.provider(jwks_url=None, jwks_file=str(file))))
    with pytest.raises(CannotRead, match="No such file"):
        await read()
    file.write_text(json.dumps(issuer.jwks()))
    keys = await read()
    assert keys is not None
    assert await read() is None
    new = tmp_path / "new"
    new.write_text("{")
    os.replace(new, file)
    with pytest.raises(UnusableKeys):
        await read()
    with pytest.raises(UnusableKeys):  # still broken, and said again
        await read()
