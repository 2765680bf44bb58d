import pytest

from lexora_router.policy.callers import MAX_HOPS, TrustedProxies, network_of

PROXIES = TrustedProxies(["127.0.0.0/8", "::1/128", "10.0.0.0/8"])


@pytest.mark.parametrize(
    ("peer", "trusted"),
    [
        ("", True),
        ("127.0.0.1", True),
        ("::1", True),
        ("::ffff:10.1.2.3", True),
        ("10.255.0.1", True),
        ("11.0.0.1", False),
        ("2001:db8::1", False),
        ("fe80::1%eth0", False),
        ("localhost", False),
        ("testclient", False),
    ],
)
def test_who_is_trusted(peer: str, trusted: bool) -> None:
    assert PROXIES.trusts(peer) is trusted


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("10.0.0.1", "", "10.0.0.1"),
        ("8.8.8.8", "1.1.1.1", "8.8.8.8"),  # it is no proxy of ours, whatever it says
        ("10.0.0.1", "1.1.1.1", "1.1.1.1"),
        ("10.0.0.1", "6.6.6.6, 1.1.1.1", "1.1.1.1"),  # the client wrote the first one
        ("10.0.0.1", "6.6.6.6,1.1.1.1,10.0.0.9,127.0.0.1", "1.1.1.1"),
        ("127.0.0.1", "10.0.0.5, 10.0.0.6", "10.0.0.5"),  # all of them ours
        ("10.0.0.1", "1.1.1.1:5000", "1.1.1.1"),
        ("10.0.0.1", "[2001:db8::7]:443", "2001:db8::7"),
        ("10.0.0.1", "2001:db8::7", "2001:db8::7"),
        ("10.0.0.1", "6.6.6.6, unknown", "10.0.0.1"),
        ("10.0.0.1", "6.6.6.6,", "10.0.0.1"),
        ("", "1.1.1.1", "1.1.1.1"),
        ("", "", ""),
        ("10.0.0.1", ",".join(["6.6.6.6"] + ["10.0.0.2"] * MAX_HOPS), "10.0.0.2"),
    ],
)
def test_the_client_is_the_first_from_the_right_that_is_no_trusted_proxy(peer: str, forwarded: str, client: str) -> None:
    assert PROXIES.client(peer, forwarded) == client


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("1.2.3.4", "1.2.3.4"),
        ("::ffff:1.2.3.4", "1.2.3.4"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("", ""),
        ("testclient", ""),
    ],
)
def test_what_tells_one_client_from_another(address: str, network: str) -> None:
    assert network_of(address) == network


def test_what_is_no_network_is_refused() -> None:
    with pytest.raises(ValueError, match="proxy"):
        TrustedProxies(["proxy"])


def test_the_network_behind_all_hops() -> None:
    proxies = TrustedProxies(["10.0.0.0/8"])
    assert proxies.network("1.2.3.4, 10.0.0.1") == "1.2.3.4"
    assert proxies.network("1.2.3.4, 5.6.7.8") == "5.6.7.8"
    assert proxies.network("2001:db8::1") == "2001:db8::/64"
    assert proxies.network("") == ""
