"""What the other end of a gRPC wire may say of others."""

import pytest
from structlog.testing import capture_logs
from tests.support.keys import record_of
from tests.unit.router.access.test_keys import Source

from lexora_contract.access import FACADE, UNPROVEN, Scope
from lexora_contract.port import CallContext
from lexora_router.access.forwarders import Forwarders
from lexora_router.access.key_format import new_key
from lexora_router.access.keys import Keys
from lexora_router.access.operators import Operators
from lexora_router.policy.callers import TrustedProxies
from lexora_router.principal import Principal

EDGE_KEY, TEAM_KEY = new_key(), new_key()
EDGE = Principal(tenant="edge", scopes=frozenset({Scope.FACADE}))
SAID = (("x-forwarded-for", "203.0.113.1"), ("x-lexora-user", "alice"), ("x-lexora-tenant", "acme"))
OTHER = ("authorization", "Bearer x")


@pytest.mark.parametrize(
    ("metadata", "peer", "certificate", "believed"),
    [
        ((), "192.0.2.1", (), False),
        ((), "", (), False),
        ((), "10.1.2.3", (), True),
        (((FACADE, EDGE_KEY.text),), "192.0.2.1", (), True),
        (((FACADE, EDGE_KEY.text),), "", (), True),
        (((FACADE, TEAM_KEY.text),), "192.0.2.1", (), False),
        (((FACADE, new_key().text),), "192.0.2.1", (), False),
        (((FACADE, EDGE_KEY.text[:-1]),), "192.0.2.1", (), False),
        ((), "192.0.2.1", ("edge.example",), True),
        ((), "192.0.2.1", ("team.example",), False),
    ],
)
def test_what_is_believed(
    metadata: tuple[tuple[str, str], ...], peer: str, certificate: tuple[str, ...], believed: bool
) -> None:
    source = Source(record_of(EDGE_KEY, scopes=(Scope.FACADE,)), record_of(TEAM_KEY))
    forwarders = Forwarders(
        keys=Keys(source),
        certificates={("edge.example",): EDGE, ("team.example",): Principal(tenant="team", scopes=frozenset({Scope.CALL}))},
        networks=["10.0.0.0/8"],
    )
    context = CallContext((OTHER, *SAID, *metadata), peer=peer, certificate=certificate)
    assert forwarders.believed(context).metadata == ((OTHER, *SAID, *metadata) if believed else (OTHER, *metadata, UNPROVEN))


def test_without_keys_and_networks_none_is_believed() -> None:
    shown = CallContext(((FACADE, EDGE_KEY.text), *SAID), peer="127.0.0.1")
    assert Forwarders().believed(shown).metadata == ((FACADE, EDGE_KEY.text), UNPROVEN)
    assert not Operators(["127.0.0.0/8"], TrustedProxies(["127.0.0.0/8"])).allow(shown)
    own = CallContext((OTHER,), peer="127.0.0.1")
    assert Forwarders().believed(own).metadata == (OTHER,)
    assert Operators(["127.0.0.0/8"], TrustedProxies(["127.0.0.0/8"])).allow(own)


def test_a_facade_s_key_that_is_no_proof_is_named() -> None:
    source = Source(record_of(TEAM_KEY))
    for shown, key, word in (
        ((), None, "give the facade a key"),
        (((FACADE, TEAM_KEY.text),), TEAM_KEY.id, "has not the scope facade"),
    ):
        forwarders = Forwarders(keys=Keys(source))
        with capture_logs() as logs:
            for _ in range(2):
                forwarders.believed(CallContext((*SAID, *shown), peer="192.0.2.1"))
        (entry,) = logs
        assert (entry["event"], entry["log_level"], entry["peer"]) == ("forwarded_not_believed", "warning", "192.0.2.1")
        assert entry.get("key") == key
        assert word in entry["advice"]
        assert TEAM_KEY.text not in str(entry)
