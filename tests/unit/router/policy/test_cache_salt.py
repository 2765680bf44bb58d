from hypothesis import given
from hypothesis import strategies as st

from lexora_router.policy.cache_salt import CacheSalts

NAMES = st.text(max_size=6) | st.sampled_from(["acme", "acme-test", "tenant", "group", ""])


@given(st.lists(NAMES, unique=True, min_size=2, max_size=4))
def test_tenants_have_salts_of_their_own(names: list[str]) -> None:
    salts = CacheSalts(b"secret")
    found = [salts.of(name) for name in names]
    assert len(set(found)) == len(names)
    assert all(len(salt) == 43 and salt.isascii() for salt in found)
    assert found == [CacheSalts(b"secret").of(name) for name in names]  # at each replica
    assert not set(found) & {CacheSalts(b"other").of(name) for name in names}


def test_a_group_shares_a_salt_that_none_of_its_names_has() -> None:
    salts = CacheSalts(b"secret", [("acme", "acme-test"), ("lab-*",)])
    assert salts.of("acme") == salts.of("acme-test")
    assert salts.of("lab-1") == salts.of("lab-2")
    assert CacheSalts(b"secret", [("acme-test", "acme")]).of("acme") == salts.of("acme")
    apart = [salts.of("acme"), salts.of("lab-1"), salts.of("lab-*"), salts.of("other"), CacheSalts(b"secret").of("acme")]
    assert len(set(apart)) == 4  # `lab-*` is a name of its own pattern
    # No name is another row of names: all parts are behind their lengths.
    assert CacheSalts(b"secret", [("a", "bc")]).of("a") != CacheSalts(b"secret", [("ab", "c")]).of("c")
