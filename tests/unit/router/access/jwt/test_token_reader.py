import base64
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.issuer import unsigned

from lexora_router.access.jwt.token_reader import ALGORITHMS, MAX_TOKEN_BYTES, REFUSED_HEADERS, Unverified, is_token, read
from lexora_router.errors import Unauthenticated

CLAIMS = {"iss": "https://issuer.example"}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)


def test_what_is_read_is_what_finds_the_key() -> None:
    token = unsigned({"alg": "ES256", "kid": "a"}, CLAIMS, b"s")
    signed = token.rpartition(".")[0].encode()
    assert read(token) == Unverified("ES256", "a", "https://issuer.example", CLAIMS, signed, b"s")
    assert read(unsigned({"alg": "RS256"}, CLAIMS)).key_id == ""


@pytest.mark.parametrize(
    ("header", "claims", "said"),
    [
        *(
            ({"alg": alg}, CLAIMS, "algorithm")
            for alg in ("none", "None", "HS256", "HS512", "PS256", "RS512", "es256", "", None, 7)
        ),
        ({}, CLAIMS, "algorithm"),
        *(({"alg": "ES256", name: value}, CLAIMS, f"`{name}`") for name in REFUSED_HEADERS for value in (["exp"], {}, None)),
        *(({"alg": "ES256", "kid": kid}, CLAIMS, "`kid`") for kid in (7, None, ["a"], "a" * 257)),
        *(({"alg": "ES256"}, {"iss": iss}, "`iss`") for iss in (None, 7, "", ["https://issuer.example"], "i" * 1025)),
        ([], CLAIMS, "header"),
        ({"alg": "ES256"}, [], "body"),
    ],
)
def test_what_no_token_may_have_is_refused_before_a_key_is_looked_for(header: Any, claims: Any, said: str) -> None:
    with pytest.raises(Unauthenticated, match=said):
        read(unsigned(header, claims))


@pytest.mark.parametrize(
    "token",
    [
        *("", "..", "a.b.c", "eyJ.eyJ.eyJ", "a.b.c.d.e", "[" * 9000),
        unsigned({"alg": "ES256"}, CLAIMS, b""),
        " " + unsigned({"alg": "ES256"}, CLAIMS),
        base64.urlsafe_b64encode(b'{"a":' * 2000).decode() + ".e30.e30",
    ],
)
def test_what_is_no_token_is_refused(token: str) -> None:
    with pytest.raises(Unauthenticated):
        read(token)


def test_a_token_above_16_kib_is_refused_before_it_is_decoded() -> None:
    long = unsigned({"alg": "ES256"}, CLAIMS | {"x": "x" * MAX_TOKEN_BYTES})
    assert is_token(long)
    with pytest.raises(Unauthenticated, match="16 KiB"):
        read(long)


@given(st.text(max_size=200) | st.binary(max_size=200).map(lambda raw: raw.decode("latin-1")))
def test_any_text_is_read_or_refused(text: str) -> None:
    with pytest.raises(Unauthenticated):
        read(text)


@given(header=JSON, claims=JSON, signature=st.binary(max_size=100))
def test_any_json_is_read_or_refused_and_what_is_read_may_be_verified(header: Any, claims: Any, signature: bytes) -> None:
    try:
        said = read(unsigned(header, claims, signature))
    except Unauthenticated:
        return
    assert said.algorithm in ALGORITHMS
    assert not set(REFUSED_HEADERS) & set(header)


@given(text=st.text(alphabet="abc.", max_size=40))
def test_a_token_is_known_by_its_dots(text: str) -> None:
    assert is_token(text) == (text.count(".") in (2, 4))
    assert not is_token("sk-lx-0123456789ab-secret")
