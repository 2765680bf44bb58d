import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import given
from hypothesis import strategies as st
from jwt.algorithms import RSAAlgorithm
from tests.support.issuer import SigningKey

from lexora_router.access.jwt.key_set import MAX_DOCUMENT_BYTES, MAX_KEYS, MAX_TRIED, KeySet, UnusableKeys, parse_keys

KEYS = [SigningKey("RS256", "r"), SigningKey("ES256", "e"), SigningKey("EdDSA", "d")]
SMALL = json.loads(RSAAlgorithm.to_jwk(rsa.generate_private_key(65537, 1024).public_key()))


def parsed(*keys: Any) -> KeySet:
    return parse_keys(json.dumps({"keys": list(keys)}).encode())


def test_a_key_is_for_one_algorithm_only() -> None:
    keys = parsed(*(key.jwk() for key in KEYS))
    for key in KEYS:
        for algorithm in ("RS256", "ES256", "EdDSA"):
            fitting = keys.fitting(key.kid, algorithm)
            assert [each.id for each in fitting] == ([key.kid] if algorithm == key.algorithm else [])
    assert keys.fitting("x", "RS256") == ()


def test_a_token_without_an_id_is_tried_with_a_few_keys_of_its_algorithm() -> None:
    keys = parsed(*(KEYS[1].jwk(kid=str(number)) for number in range(20)), KEYS[0].jwk())
    assert len(keys.fitting("", "ES256")) == MAX_TRIED
    assert len(keys.fitting("", "RS256")) == 1


@pytest.mark.parametrize(
    "odd",
    [
        {"kty": "oct", "k": "c2VjcmV0", "kid": "h"},  # an HMAC secret in public
        KEYS[0].jwk(use="enc"),
        KEYS[0].jwk(key_ops=["encrypt"]),
        KEYS[0].jwk(alg="HS256"),
        KEYS[0].jwk(alg="RS512"),
        KEYS[0].jwk(n=7),
        KEYS[0].jwk(n=""),
        KEYS[0].jwk(n="_" * 1400),  # 8400 bits
        KEYS[0].jwk(n="_" * 400_000),
        KEYS[0].jwk(e="_" * 400_000),
        KEYS[1].jwk(crv="P-384"),
        KEYS[1].jwk(crv=["P-256"]),
        KEYS[1].jwk(x="AAAA"),
        KEYS[0].jwk(kid=["a"]),
        {**SMALL, "kid": "s"},
        "text",
        None,
    ],
)
def test_a_key_for_anything_else_is_left_out(odd: Any) -> None:
    assert [key.id for key in parsed(odd, KEYS[2].jwk()).keys] == ["d"]
    with pytest.raises(UnusableKeys, match="no key"):
        parsed(odd)


def test_a_private_key_that_was_published_is_used_as_the_public_one_it_has() -> None:
    private = json.loads(RSAAlgorithm.to_jwk(KEYS[0].private))
    (key,) = parsed({**private, "kid": "r", "key_ops": ["verify"]}).keys
    assert key == parsed(KEYS[0].jwk()).keys[0]
    assert "d" not in key.verifier._jwk_data


@pytest.mark.parametrize(
    ("document", "said"),
    [
        (b"", "JSON"),
        (b"[]", "no list"),
        (b'{"keys": {}}', "no list"),
        (b'{"keys":' * 3000, "JSON"),
        (json.dumps({"keys": [KEYS[1].jwk(kid=str(n)) for n in range(MAX_KEYS + 1)]}).encode(), "more than 100 keys"),
        (b" " * (MAX_DOCUMENT_BYTES + 1), "more than 512 KiB"),
    ],
)
def test_what_is_no_key_set_says_why(document: bytes, said: str) -> None:
    with pytest.raises(UnusableKeys, match=said):
        parse_keys(document)


@given(st.binary(max_size=300) | st.text(max_size=100).map(lambda text: json.dumps({"keys": [{"kty": text}]}).encode()))
def test_any_document_is_read_or_refused(document: bytes) -> None:
    with pytest.raises(UnusableKeys):
        parse_keys(document)
