import pytest

from lexora_contract.port import CallContext
from lexora_router.access.operators import Operators
from lexora_router.policy.callers import TrustedProxies


def allowed(peer: str, *forwarded: str, networks: tuple[str, ...] = ("10.1.0.0/16", "2001:db8::/32")) -> bool:
    metadata = tuple(("x-forwarded-for", each) for each in forwarded)
    return Operators(networks, TrustedProxies(["192.0.2.0/24"])).allow(CallContext(metadata, None, peer=peer))


@pytest.mark.parametrize(
    ("peer", "forwarded", "expected"),
    [
        ("10.1.2.3", (), True),
        ("::ffff:10.1.2.3", (), True),
        ("2001:db8::1", (), True),
        ("10.2.0.1", (), False),
        ("", (), False),  # a unix socket without a client's address
        ("nonsense", (), False),
        ("", ("10.1.2.3",), True),  # the facade in this process adds the address of its connection
        ("", ("10.1.2.3,203.0.113.7",), False),  # and a client what it likes, at the left end
        ("192.0.2.1", ("10.1.2.3",), True),
        ("192.0.2.1", ("203.0.113.7", "10.1.2.3"), False),  # the address may be that of a proxy that is not known here
        ("", ("203.0.113.7,10.1.2.3",), False),
        ("", (",10.1.2.3",), False),
        ("192.0.2.1", ("10.1.2.3", "192.0.2.2"), True),
        ("192.0.2.1", ("10.1.2.3", "203.0.113.7"), False),
        ("192.0.2.1", ("nonsense",), False),
        ("10.1.2.3", ("10.1.2.3",), False),  # a proxy that is not trusted: the address is its own
        ("10.1.2.3", ("203.0.113.7",), False),
    ],
)
def test_only_an_address_that_is_certainly_the_callers_counts(peer: str, forwarded: tuple[str, ...], expected: bool) -> None:
    assert allowed(peer, *forwarded) is expected
