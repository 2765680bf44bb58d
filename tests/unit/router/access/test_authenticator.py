"""Which credential counts, and for which kind of reader it is."""

import pytest
from tests.support.keys import record_of
from tests.unit.router.access.test_keys import Source

from lexora_contract.access import Scope
from lexora_contract.port import CallContext
from lexora_router.access.audit import AuditLog
from lexora_router.access.authenticator import Authenticator, Failures
from lexora_router.access.key_format import new_key
from lexora_router.access.keys import Keys
from lexora_router.errors import TooManyAttempts, Unauthenticated
from lexora_router.policy.callers import TrustedProxies
from lexora_router.principal import Principal

KEY, OTHER = new_key(), new_key()
TOKEN = "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJ4In0.c2lnbmF0dXJl"
BY_TOKEN = Principal(tenant="token")
EDGE = Principal(tenant="edge", scopes=frozenset({Scope.FACADE}))
BY_CERTIFICATE = Principal(tenant="certificate", scopes=frozenset({Scope.CALL}))


class Tokens:
    def __init__(self, *, seen: bool = True) -> None:
        self.seen = seen

    def known(self, token: str) -> Principal | None:
        if token != TOKEN:
            raise Unauthenticated("no", "signature")
        return BY_TOKEN if self.seen else None

    async def find(self, token: str, source: str = "") -> Principal:
        return BY_TOKEN


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def authenticator(modes: str = "keys", *, seen: bool = True, clock: Clock | None = None) -> Authenticator:
    return Authenticator(
        keys=Keys(Source(record_of(KEY))) if "keys" in modes else None,
        tokens=Tokens(seen=seen) if "jwt" in modes else None,
        certificates={("client.example",): BY_CERTIFICATE, ("edge.example",): EDGE},
        failures=Failures(AuditLog(), clock or Clock()),
        proxies=TrustedProxies(["10.0.0.0/8"]),
    )


def context(*metadata: tuple[str, str], peer: str = "192.0.2.1", certificate: tuple[str, ...] = ()) -> CallContext:
    return CallContext(metadata, peer=peer, certificate=certificate)


def bearer(text: str) -> tuple[str, str]:
    return "authorization", f"Bearer {text}"


@pytest.mark.parametrize(
    ("modes", "shown", "tenant"),
    [
        ("keys", (bearer(KEY.text),), "team"),
        ("keys", (("x-api-key", KEY.text),), "team"),
        ("keys", (("api-key", f" {KEY.text} "),), "team"),
        ("keys", (("authorization", f"BEARER {KEY.text}"), ("x-api-key", KEY.text)), "team"),
        ("keys", (("x-api-key", ""), bearer(KEY.text)), "team"),
        ("keys", (("authorization", ""), ("api-key", KEY.text)), "team"),
        ("keys+jwt", (bearer(KEY.text),), "team"),
        ("keys+jwt", (bearer(TOKEN),), "token"),
        ("jwt", (bearer(TOKEN),), "token"),
    ],
)
def test_what_is_taken(modes: str, shown: tuple[tuple[str, str], ...], tenant: str) -> None:
    found = authenticator(modes).known(context(*shown))
    assert found is not None
    assert found.tenant == tenant


@pytest.mark.parametrize(
    ("modes", "shown", "cause"),
    [
        ("keys", (), "missing"),
        ("keys", (("authorization", "Bearer"),), "missing"),
        ("keys", (("x-other", KEY.text),), "missing"),
        ("keys", (bearer(KEY.text), ("x-api-key", OTHER.text)), "several"),
        ("keys", (bearer(KEY.text), bearer(OTHER.text)), "several"),
        ("keys", (("authorization", KEY.text),), "malformed"),
        ("keys", (("authorization", f"Basic {KEY.text}"),), "malformed"),
        ("keys", (("x-api-key", "k" * 20_000),), "malformed"),
        ("jwt", (bearer(KEY.text),), "signature"),
        ("keys+jwt", (bearer(TOKEN + "x"),), "signature"),
    ],
)
def test_what_is_refused(modes: str, shown: tuple[tuple[str, str], ...], cause: str) -> None:
    with pytest.raises(Unauthenticated) as caught:
        authenticator(modes).known(context(*shown))
    assert caught.value.cause == cause
    assert KEY.text not in caught.value.message


async def test_a_token_that_was_not_seen_is_waited_for() -> None:
    asked = authenticator("keys+jwt", seen=False)
    assert asked.known(context(bearer(TOKEN))) is None
    assert await asked.find(context(bearer(TOKEN))) is BY_TOKEN


def test_a_certificate_counts_where_nothing_else_is_shown() -> None:
    asked, names = authenticator(), ("client.example",)
    assert asked.known(context(certificate=names)) is BY_CERTIFICATE
    found = asked.known(context(bearer(KEY.text), certificate=names))
    assert found is not None
    assert found.tenant == "team"
    with pytest.raises(Unauthenticated):
        asked.known(context(bearer(OTHER.text[:-1]), certificate=names))
    with pytest.raises(Unauthenticated):
        asked.known(context(certificate=("other.example",)))
    with pytest.raises(Unauthenticated, match="No credentials"):  # the clients of a façade are not the façade
        asked.known(context(certificate=("edge.example",)))


async def failing(asked: Authenticator, text: str, *metadata: tuple[str, str], peer: str = "192.0.2.1") -> Unauthenticated:
    shown = context(("x-api-key", text), *metadata, peer=peer)
    try:
        known = asked.known(shown)
    except Unauthenticated as error:
        return error
    assert known is None
    with pytest.raises(Unauthenticated) as caught:
        await asked.find(shown)
    return caught.value


async def test_guesses_are_counted_by_the_client_s_network() -> None:
    clock = Clock()
    asked = authenticator(clock=clock)
    answers = [await failing(asked, new_key().text) for _ in range(21)]
    assert [isinstance(each, TooManyAttempts) for each in answers] == [False] * 20 + [True]
    assert asked.known(context(bearer(KEY.text))) is not None
    forged = ("x-forwarded-for", "198.51.100.9")
    assert isinstance(await failing(asked, new_key().text, forged), TooManyAttempts)
    assert not isinstance(await failing(asked, new_key().text, forged, peer="10.0.0.1"), TooManyAttempts)
    clock.now += 2.0
    assert not isinstance(await failing(asked, new_key().text), TooManyAttempts)


async def test_a_client_that_repeats_one_wrong_key_guesses_nothing() -> None:
    asked = authenticator()
    assert not any([isinstance(await failing(asked, OTHER.text), TooManyAttempts) for _ in range(50)])
