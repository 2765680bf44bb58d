"""Keys, and owners of stored responses, that two real routers share by a real Valkey."""

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from google.protobuf.duration_pb2 import Duration

from lexora.v1.keys_pb2 import CreateKeyRequest, GetKeyRequest, Key, ListKeysRequest, RevokeKeyRequest, RotateKeyRequest
from lexora_router.access.key_format import new_key
from tests.e2e.conftest import MODEL
from tests.support.keys import ALL, add_key
from tests.support.queueing import CHAT, Stub
from tests.support.servers import Gateway, Simulator, calm_config
from tests.support.valkey import ValkeyProcess
from tests.support.wire import wait_until

IN_FORCE_SECONDS = 2.0
HI = {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2}


@dataclass
class Replicas:
    store: ValkeyProcess
    one: Gateway
    two: Gateway
    admin: str
    config: dict[str, Any]

    def ask(self, gateway: Gateway, key: str) -> int:
        return httpx.post(f"{gateway.http}{CHAT}", json=HI, headers={"x-api-key": key}, timeout=10, verify=False).status_code

    @contextlib.contextmanager
    def stub(self, gateway: Gateway) -> Iterator[Any]:
        with grpc.insecure_channel(gateway.grpc) as channel:
            yield Stub(channel)

    @property
    def shown(self) -> tuple[tuple[str, str], ...]:
        return (("x-api-key", self.admin),)

    def soon(self, gateway: Gateway, key: str, status: int) -> None:
        """The replica answers so within the time in which a change must be in force."""
        began = time.monotonic()
        wait_until(lambda: self.ask(gateway, key) == status, f"{status} at the other replica")
        assert time.monotonic() - began < IN_FORCE_SECONDS + 1  # and the time of a call


@pytest.fixture
def replicas(sim: Simulator, tmp_path: Path) -> Iterator[Replicas]:
    file = tmp_path / "keys.jsonl"
    admin = add_key(file, name="ops", tenant="ops", scopes=ALL).text
    with ValkeyProcess(tmp_path / "valkey") as store, contextlib.ExitStack() as stack:
        config = calm_config(main={"url": sim.url, "models": [MODEL]})
        config["auth"] = {"mode": "keys", "keys": "file+shared", "keys_file": str(file)}
        config["state"] = {"url": store.url, "timeout": 0.5}
        folders = [tmp_path / name for name in ("one", "two")]
        for folder in folders:
            folder.mkdir()
        one, two = (stack.enter_context(Gateway(config, folder)) for folder in folders)
        for gateway in (one, two):
            gateway.headers = {"x-api-key": admin}
        yield Replicas(store, one, two, admin, config)


def test_a_change_at_one_replica_is_in_force_at_all(replicas: Replicas, tmp_path: Path) -> None:
    unknown = new_key().text
    with replicas.stub(replicas.one) as one, replicas.stub(replicas.two) as two:
        made = one.CreateKey(CreateKeyRequest(key=Key(name="ci", tenant="acme")), metadata=replicas.shown)
        assert replicas.ask(replicas.one, made.secret) == 200
        replicas.soon(replicas.two, made.secret, 200)
        rotated = two.RotateKey(RotateKeyRequest(id=made.key.id, overlap=Duration(seconds=60)), metadata=replicas.shown)
        replicas.soon(replicas.one, rotated.secret, 200)
        assert replicas.ask(replicas.one, made.secret) == 200  # it holds beside the new one
        one.RevokeKey(RevokeKeyRequest(id=rotated.key.id), metadata=replicas.shown)
        assert replicas.ask(replicas.one, rotated.secret) == 401
        replicas.soon(replicas.two, rotated.secret, 401)
        assert replicas.ask(replicas.two, unknown) == 401
        # A key of the file is changed there, by whichever replica; what both have is listed once.
        listed = two.ListKeys(ListKeysRequest(), metadata=replicas.shown).keys
        assert sorted(key.name for key in listed) == ["ci", "ci", "ops"]
        store = (tmp_path / "keys.jsonl").read_text()
        assert (made.key.id in store, "ops" in store) == (False, True)
        for key in (made.secret, rotated.secret):
            assert key[-50:] not in replicas.one.output + replicas.two.output
    said = [line for line in replicas.two.lines if "key_created" in line]
    assert len(said) == 1
    assert "another replica" in said[0]


def test_without_the_store_known_keys_hold_and_others_are_not_condemned(replicas: Replicas) -> None:
    unknown = new_key().text
    with replicas.stub(replicas.one) as one, replicas.stub(replicas.two) as two:
        made = one.CreateKey(CreateKeyRequest(key=Key(name="ci", tenant="acme")), metadata=replicas.shown)
        dropped = one.CreateKey(CreateKeyRequest(key=Key(name="left", tenant="acme")), metadata=replicas.shown)
        one.RevokeKey(RevokeKeyRequest(id=dropped.key.id), metadata=replicas.shown)
        replicas.soon(replicas.two, made.secret, 200)
        replicas.soon(replicas.two, dropped.secret, 401)
        replicas.store.kill()
        for gateway in (replicas.one, replicas.two):
            wait_until(lambda gateway=gateway: replicas.ask(gateway, unknown) == 503, "the loss to be seen")  # type: ignore[misc]
            assert [replicas.ask(gateway, key) for key in (made.secret, dropped.secret, replicas.admin)] == [200, 401, 200]
            assert httpx.get(f"{gateway.http}/health/ready", verify=False).status_code == 200
            assert gateway.metric("lexora_keys_readable") == 0
        with pytest.raises(grpc.RpcError) as refused:
            two.RevokeKey(RevokeKeyRequest(id=made.key.id), metadata=replicas.shown, timeout=10)
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE  # type: ignore[attr-defined]
        replicas.store.start()  # empty: it had written nothing to its disk
        for gateway in (replicas.one, replicas.two):
            wait_until(lambda gateway=gateway: replicas.ask(gateway, unknown) == 401, "the store to be read again")  # type: ignore[misc]
            assert [replicas.ask(gateway, key) for key in (made.secret, dropped.secret)] == [200, 401]
        two.RevokeKey(RevokeKeyRequest(id=made.key.id), metadata=replicas.shown)
        replicas.soon(replicas.one, made.secret, 401)
        assert one.GetKey(GetKeyRequest(id=dropped.key.id), metadata=replicas.shown).key.HasField("revoke_time")


def test_a_new_replica_has_all_keys_and_the_owners_of_all_responses(replicas: Replicas, tmp_path: Path) -> None:
    def responses(gateway: Gateway, key: str) -> httpx.Client:
        return httpx.Client(base_url=gateway.http, headers={"x-api-key": key}, timeout=10, verify=False)

    with replicas.stub(replicas.one) as one:
        acme, other = (
            one.CreateKey(CreateKeyRequest(key=Key(name=tenant, tenant=tenant)), metadata=replicas.shown).secret
            for tenant in ("acme", "other")
        )
    ask = {"model": MODEL, "input": "Hi", "max_output_tokens": 2}
    with responses(replicas.one, acme) as client:
        made = client.post("/v1/responses", json=ask).json()["id"]
    folder = tmp_path / "three"
    folder.mkdir()
    with Gateway(replicas.config, folder) as three:
        for gateway in (replicas.two, three):
            replicas.soon(gateway, acme, 200)
            with responses(gateway, acme) as mine, responses(gateway, other) as theirs:
                wait_until(lambda mine=mine: mine.get(f"/v1/responses/{made}").status_code == 200, "its owner to be known")  # type: ignore[misc]
                assert mine.post("/v1/responses", json=ask | {"previous_response_id": made}).status_code == 200
                assert theirs.get(f"/v1/responses/{made}").status_code == 404
                assert theirs.post("/v1/responses", json=ask | {"previous_response_id": made}).status_code == 404
                assert mine.get("/v1/responses/resp_" + "0" * 32).status_code == 404
        replicas.store.kill()  # each still has those that it has made, or been asked for
        with responses(three, acme) as mine:
            assert mine.get(f"/v1/responses/{made}").status_code == 200
            assert mine.post("/v1/responses", json=ask).status_code == 200
