"""Tokens against a real issuer: what holds, and the list of attacks."""

import asyncio
import base64
import hashlib
import hmac
import json
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st
from tests.support.issuer import AUDIENCE, Issuer, SigningKey, unsigned
from tests.unit.router.access.jwt.test_key_cache import until

from lexora_router.access.jwt import tokens as tokens_module
from lexora_router.access.jwt.tokens import Tokens
from lexora_router.config.jwt import JwtProvider
from lexora_router.errors import AccessUnavailable, Unauthenticated


@pytest.fixture(scope="module")
def shared() -> Iterator[Issuer]:
    with Issuer() as started:
        started.keys = [SigningKey("ES256", "first"), SigningKey("RS256", "rsa"), SigningKey("EdDSA", "ed")]
        yield started


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    with Issuer() as started:
        yield started


@asynccontextmanager
async def verifier(*issuers: Issuer, **settings: Any) -> AsyncIterator[Tokens]:
    settings = {"cooldown": 0.01} | settings
    tokens = Tokens([JwtProvider(**each.provider(name=f"issuer{n}", **settings)) for n, each in enumerate(issuers)])
    tokens.start()
    try:
        yield tokens
    finally:
        await tokens.stop()


async def refusal(tokens: Tokens, token: str) -> str:
    assert tokens.known(token) is None
    with pytest.raises(Unauthenticated) as refused:
        await tokens.find(token)
    assert tokens.known(token) is None
    return str(refused.value)


async def test_while_it_is_not_known_which_tokens_are_revoked_none_is_let_in(issuer: Issuer, tmp_path: Path) -> None:
    file = tmp_path / "revoked"
    async with verifier(issuer, revoked_file=str(file)) as tokens:
        with pytest.raises(AccessUnavailable):
            await tokens.find(issuer.token(jti="a"))
        file.write_text("b\n")
        await until(lambda: tokens._revoked[issuer.url].ids)
        good = issuer.token(jti="a")
        assert (await tokens.find(good)).tenant == "acme"
        assert "revoked" in await refusal(tokens, issuer.token(jti="b"))
        assert "`jti`" in await refusal(tokens, issuer.token(jti=["b"]))
        file.write_text("b\na\n")
        await until(lambda: tokens.known(good) is None)
        file.write_bytes(b"\xff\n")  # what cannot be read changes nothing
        await until(lambda: tokens._revoked[issuer.url]._fault)
        assert "revoked" in await refusal(tokens, good)
        # One that takes over has the same list, and goes on reading it.
        settings = issuer.provider(name="issuer0", cooldown=0.01, revoked_file=str(file))
        later = Tokens([JwtProvider(**settings)], tokens)
        later.start()
        await tokens.stop(later)
        file.write_text("c\n")
        await until(lambda: later._revoked[issuer.url].ids == {"c"})
        await later.stop()


async def test_tokens_of_each_algorithm_hold_and_are_verified_once(shared: Issuer, monkeypatch: pytest.MonkeyPatch) -> None:
    verified: list[bytes] = []
    verify = tokens_module.signing_key
    monkeypatch.setattr(tokens_module, "signing_key", lambda said, keys: verified.append(said.signed) or verify(said, keys))
    async with verifier(shared) as tokens:
        for key in shared.keys:
            token = shared.token(key)
            assert tokens.known(token) is None
            found = await tokens.find(token)
            assert (found.tenant, found.key) == ("acme", "issuer0:alice")
            assert tokens.known(token) is found
            assert verified.count(token.rpartition(".")[0].encode()) == 1


def attacks(issuer: Issuer) -> dict[str, tuple[str, str]]:
    """Name -> token, and what its refusal says."""
    es, rs, ed = issuer.keys
    stranger = SigningKey("ES256", "first")
    good, claims, now = issuer.token(es), issuer.claims(), time.time()
    pem = rs.private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    def hmac_signed(secret: bytes, **header: Any) -> str:
        head = unsigned({"alg": "HS256", "typ": "JWT", "kid": "rsa"} | header, claims).rpartition(".")[0]
        mac = base64.urlsafe_b64encode(hmac.digest(secret, head.encode(), "sha256")).rstrip(b"=").decode()
        return f"{head}.{mac}"

    head, body, signature = good.split(".")
    other_body = unsigned({}, claims | {"org": "other"}).split(".")[1]
    short = {name: value for name, value in claims.items() if name != "exp"}
    return {
        "none": (jwt.encode(claims, None, "none"), "malformed|algorithm"),
        "none with a signature": (unsigned({"alg": "none", "kid": "first"}, claims), "algorithm"),
        "None": (unsigned({"alg": "nOnE"}, claims, b""), "malformed|algorithm"),
        "HMAC with the public key": (hmac_signed(pem), "algorithm"),
        "HMAC with the public key, said to be RS256": (hmac_signed(pem, alg="RS256"), "signature"),
        "HMAC with the JWK": (hmac_signed(json.dumps(rs.jwk()).encode()), "algorithm"),
        "the key of another algorithm": (es.sign(claims, kid="rsa"), "none of its issuer's"),
        "an embedded key": (stranger.sign(claims, jwk=stranger.jwk()), "`jwk`"),
        "an address of keys": (stranger.sign(claims, jku="https://evil.example/jwks"), "`jku`"),
        "an address of a certificate": (stranger.sign(claims, x5u="https://evil.example/pem"), "`x5u`"),
        "a certificate": (stranger.sign(claims, x5c=["MIIB"]), "`x5c`"),
        "a critical extension": (es.sign(claims, crit=["exp"]), "`crit`"),
        "an unencoded body": (unsigned({"alg": "ES256", "kid": "first", "b64": False}, claims), "`b64`"),
        "a stranger's key under a known id": (stranger.sign(claims), "signature"),
        "a stranger's key without an id": (stranger.sign(claims, kid=None), "signature"),
        "a path for an id": (stranger.sign(claims, kid="../../dev/null"), "none of its issuer's"),
        "another body": (f"{head}.{other_body}.{signature}", "signature"),
        "a signature cut off": (good[:-4], "malformed|signature"),
        "no signature": (f"{head}.{body}.", "malformed"),
        "padding": (good + "=", "malformed"),
        "a space": (good + " ", "malformed"),
        "an encrypted token": (f"{head}.{body}.{signature}.{body}.{signature}", "malformed"),
        "16 KiB": (issuer.token(es, x="x" * 16384), "16 KiB"),
        "expired": (issuer.token(es, exp=int(now) - 31), "expired"),
        "expired long ago": (issuer.token(es, exp=0), "expired"),
        "without an end": (es.sign(short), "`exp`"),
        "an end of text": (issuer.token(es, exp="9999999999"), "`exp`"),
        "an end of 400 digits": (issuer.token(es, exp=10**400), "`exp`|JSON"),
        "an audience of objects": (issuer.token(es, aud={"lexora": 1}), "audience"),
        "an end of true": (issuer.token(es, exp=True), "`exp`"),
        "an endless end": (unsigned({"alg": "ES256", "kid": "first"}, claims | {"exp": 1e400}), "JSON|signature|body"),
        "not yet": (issuer.token(es, nbf=int(now) + 100), "not valid yet"),
        "not yet, as null": (es.sign({**issuer.claims(), "nbf": None}), "`nbf`"),
        "not yet, as text": (issuer.token(es, nbf="soon"), "`nbf`"),
        "another audience": (issuer.token(es, aud="other"), "audience"),
        "an audience that only begins so": (issuer.token(es, aud=AUDIENCE + "2"), "audience"),
        "other audiences": (issuer.token(es, aud=["other", "more"]), "audience"),
        "no audience": (issuer.token(es, aud=None), "`aud`"),
        "an audience of numbers": (issuer.token(es, aud=[7]), "audience"),
        "another issuer": (issuer.token(es, iss="https://other.example"), "issuer"),
        "an issuer that only begins so": (issuer.token(es, iss=issuer.url + "/"), "issuer"),
        "issuers": (unsigned({"alg": "ES256"}, claims | {"iss": [issuer.url]}), "`iss`"),
        "no issuer": (issuer.token(es, iss=None), "`iss`"),
        "no tenant": (issuer.token(es, org=None), "tenant"),
        "no subject": (issuer.token(ed, sub=None), "`sub`"),
    }


async def test_every_attack_is_refused_and_no_refusal_repeats_the_token(shared: Issuer) -> None:
    async with verifier(shared) as tokens:
        for name, (token, said) in attacks(shared).items():
            message = await refusal(tokens, token)
            assert any(each in message for each in said.split("|")), (name, message)
            assert not any(part and part in message for part in token.split(".")), name
            assert "acme" not in message


@pytest.mark.parametrize("length", [1, 63, 64, 65, 255, 256, 257, 8000])
async def test_a_signature_of_any_length_is_only_wrong(shared: Issuer, length: int) -> None:
    async with verifier(shared) as tokens:
        for key in shared.keys:
            for byte in (b"\0", b"\xff", b"0"):
                forged = unsigned({"alg": key.algorithm, "kid": key.kid}, shared.claims(), byte * length)
                assert "signature" in await refusal(tokens, forged)


async def test_leeway_counts_for_both_ends(shared: Issuer) -> None:
    now = int(time.time())
    async with verifier(shared, leeway=100) as tokens:
        await tokens.find(shared.token(exp=now - 50))
        await tokens.find(shared.token(nbf=now + 50))


async def test_a_remembered_token_ends_with_its_time(shared: Issuer) -> None:
    clock = [time.time()]
    tokens = Tokens([JwtProvider(**shared.provider(leeway=10.0))], now=lambda: clock[0])
    tokens.start()
    token = shared.token(exp=int(clock[0]) + 60)
    await tokens.find(token)
    clock[0] += 69
    assert tokens.known(token)
    clock[0] += 2
    assert tokens.known(token) is None
    await tokens.stop()


async def test_two_issuers_are_pinned_to_their_own_keys(shared: Issuer, issuer: Issuer) -> None:
    async with verifier(shared, issuer) as tokens:
        assert (await tokens.find(issuer.token())).key == "issuer1:alice"
        # The same key id at another issuer signs nothing for this one.
        assert "signature" in await refusal(tokens, issuer.keys[0].sign(shared.claims()))


async def test_a_withdrawn_key_ends_its_tokens_at_once(issuer: Issuer) -> None:
    async with verifier(issuer, refresh=0.05) as tokens:
        old, kept = issuer.keys[0], SigningKey("ES256", "kept")
        issuer.keys.append(kept)
        await tokens.find(kept_token := issuer.token(kept))
        await tokens.find(token := issuer.token(old))
        issuer.keys.remove(old)
        await until(lambda: tokens.known(token) is None)
        assert tokens.known(kept_token)
        assert "none of its issuer's" in await refusal(tokens, token)


async def test_an_issuer_that_is_down_at_the_start_makes_tokens_unavailable_and_not_wrong(issuer: Issuer) -> None:
    issuer.stop()
    async with verifier(issuer) as tokens:
        token = issuer.token()
        with pytest.raises(AccessUnavailable):
            await tokens.find(token)
        issuer.start()
        while True:
            try:
                found = await tokens.find(token)
                break
            except AccessUnavailable:
                await asyncio.sleep(0.02)
        assert found.tenant == "acme"
        # What holds is remembered, and new tokens of known keys are verified, while it is away again.
        issuer.stop()
        assert tokens.known(token)
        await tokens.find(issuer.token(sub="bob"))


async def test_what_is_remembered_is_bounded(shared: Issuer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens_module, "MAX_REMEMBERED", 3)
    async with verifier(shared) as tokens:
        made = [shared.token(sub=f"user-{number}") for number in range(5)]
        for token in made:
            await tokens.find(token)
        assert [tokens.known(token) is not None for token in made] == [False, False, True, True, True]


async def test_a_reload_keeps_the_keys_and_tokens_of_providers_that_stay(shared: Issuer, issuer: Issuer) -> None:
    first, second = (JwtProvider(**each.provider(name=name)) for each, name in ((shared, "a"), (issuer, "b")))
    old = Tokens([first, second])
    old.start()
    stays, goes = shared.token(), issuer.token()
    await old.find(stays)
    await old.find(goes)
    asked = shared.asked["/jwks"], issuer.asked["/jwks"]
    new = Tokens([first, second.model_copy(update={"leeway": 1.0})], old)
    new.start()
    await old.stop(new)
    assert new.known(stays)
    assert new.known(goes) is None
    await new.find(goes)
    assert (shared.asked["/jwks"], issuer.asked["/jwks"]) == (asked[0], asked[1] + 1)
    await new.stop()


@given(st.integers(0, 10_000), st.integers(1, 255))
def test_no_changed_byte_of_a_token_leaves_it_known(place: int, change: int) -> None:
    """Two tokens never share an entry: found is the digest of the whole."""
    token = TOKEN[: (at := place % len(TOKEN))] + chr((ord(TOKEN[at]) + change) % 256) + TOKEN[at + 1 :]
    tokens = Tokens([])
    tokens._seen[hashlib.sha256(TOKEN.encode()).digest()] = VERIFIED
    assert tokens.known(TOKEN)
    assert tokens.known(token) is None


TOKEN = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhbGljZSJ9." + "c2lnbmF0dXJl" * 6
VERIFIED = tokens_module._Verified(tokens_module.Principal(tenant="acme"), float("inf"), "", b"")
