"""A façade in a process of its own: what its router believes of what it says of its clients, with and without a proof."""

from collections.abc import Iterator
from pathlib import Path

import grpc
import httpx
import msgspec
import pytest

from lexora.v1.call_pb2 import Call
from lexora.v1.options_pb2 import CallOptions
from lexora.v1.raw_pb2 import RawCall
from lexora.v1.router_pb2 import GenerateRequest
from lexora_contract.access import Scope
from lexora_router.access.key_format import NewKey, new_key
from tests.e2e.test_keys import HI
from tests.support.keys import ALL, add_key
from tests.support.queueing import CHAT, MODEL, Stub
from tests.support.servers import Facade, Gateway, Simulator, calm_config

ALICE, CLIENT = ("x-lexora-user", "alice"), ("x-forwarded-for", "203.0.113.9")
OTHERS = ("x-lexora-tenant", "others")
KEY_VARIABLE = "EDGE_KEY"


@pytest.fixture(scope="module")
def keys(folder: Path) -> dict[str, NewKey]:
    file = folder / "keys.jsonl"
    made = {"team": add_key(file, scopes=ALL, tenant="team"), "facade": add_key(file, scopes=(Scope.FACADE,), tenant="edge")}
    return made | {"unknown": new_key()}


@pytest.fixture(scope="module")
def router(sim: Simulator, folder: Path, keys: dict[str, NewKey]) -> Iterator[Gateway]:
    config = calm_config(main={"url": sim.url, "models": [MODEL]})
    config["auth"] = {
        "mode": "keys",
        "keys_file": str(folder / "keys.jsonl"),
        "facade_key_env": KEY_VARIABLE,
    }
    with Gateway(config, folder) as process:
        yield process


def call_line(router: Gateway, name: str) -> str:
    return router.wait_for(rf".* call .*request_id={name} .*").group(0)


def guess(base: str, address: str) -> int:
    shown = [("x-forwarded-for", address), ("x-api-key", new_key().text)]
    return httpx.post(f"{base}{CHAT}", json=HI, headers=shown, verify=False).status_code


@pytest.mark.parametrize("proof", ["facade", "", "unknown", "team"], ids=["proven", "none", "unknown", "other scope"])
def test_only_a_facade_that_proves_itself_is_believed(router: Gateway, keys: dict[str, NewKey], proof: str) -> None:
    proven = proof == "facade"
    with Facade(router, {KEY_VARIABLE: keys[proof].text} if proof else {}) as facade:
        shown = [ALICE, CLIENT, OTHERS, ("authorization", f"Bearer {keys['team'].text}")]
        assert httpx.post(f"{facade.http}{CHAT}", json=HI, headers=shown, verify=False).status_code == 200
        stolen = [("x-lexora-facade", keys["facade"].text)]
        assert httpx.post(f"{facade.http}{CHAT}", json=HI, headers=stolen, verify=False).status_code == 401
        assert [guess(facade.http, "203.0.113.9") for _ in range(21)][-1] == 429
        # Another client's guesses are its own, where the façade is believed that it is another one.
        assert guess(facade.http, "203.0.113.77") == (401 if proven else 429)
    assert (not proof) == ("EDGE_KEY is not set" in facade.output)
    assert proven or "forwarded_not_believed" in router.output
    assert "tenant=others" not in router.output


def test_a_facade_s_key_calls_nothing(router: Gateway, keys: dict[str, NewKey]) -> None:
    answer = httpx.post(f"{router.http}{CHAT}", json=HI, headers={"x-api-key": keys["facade"].text}, verify=False)
    assert answer.status_code == 403


def test_other_grpc_clients_are_believed_with_a_proof_alone(router: Gateway, keys: dict[str, NewKey]) -> None:
    with grpc.insecure_channel(router.grpc) as channel:

        def line(name: str, *metadata: tuple[str, str]) -> str:
            shown, raw = (("x-api-key", keys["team"].text), ALICE, *metadata), RawCall(path=CHAT, body=msgspec.json.encode(HI))
            Stub(channel).Generate(GenerateRequest(call=Call(raw=raw, options=CallOptions(request_id=name))), metadata=shown)
            return call_line(router, name)

        assert "user=alice" not in line("grpc-none")
        assert "user=alice" not in line("grpc-team", ("x-lexora-facade", keys["team"].text))
        assert "user=alice" in line("grpc-facade", ("x-lexora-facade", keys["facade"].text))
