"""The audit log of a real gateway: what is written down, where, and that no secret is."""

import json
import stat
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
import yaml
from typer.testing import CliRunner

from lexora.v1.audit_pb2 import ListAuditEventsRequest
from lexora.v1.keys_pb2 import CreateKeyRequest, RevokeKeyRequest, RotateKeyRequest
from lexora.v1.reload_pb2 import ReloadRequest
from lexora_cli.main import app
from lexora_contract.access import Scope
from lexora_router.access.key_format import NewKey, new_key
from tests.e2e.test_keys import HI
from tests.support.keys import ALL, PAST, add_key, change_key
from tests.support.queueing import CHAT, MODEL, Stub
from tests.support.servers import Gateway, Simulator, calm_config
from tests.support.wire import wait_until


def shown(key: NewKey) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {key.text}"),)


def fail(gateway: Gateway, sender: str, key: str) -> None:
    transport = httpx.HTTPTransport(local_address=sender, verify=False)
    with httpx.Client(base_url=gateway.http, transport=transport) as client:
        assert client.post(CHAT, json=HI, headers={"x-api-key": key} if key else {}).status_code == 401


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def test_what_is_done_is_written_down(sim: Simulator, tmp_path: Path) -> None:
    file, keys = tmp_path / "audit.jsonl", tmp_path / "keys.jsonl"
    ops, plain, ended = add_key(keys, name="ops", scopes=ALL), add_key(keys, name="plain"), add_key(keys, expires=PAST)
    config = calm_config(main={"url": sim.url, "models": [MODEL]})
    config |= {"auth": {"mode": "keys", "keys_file": str(keys)}, "audit": {"file": str(file)}}
    with Gateway(config, tmp_path) as gateway, grpc.insecure_channel(gateway.grpc) as channel:
        stub, mine = Stub(channel), shown(ops)
        made = stub.CreateKey(CreateKeyRequest(key={"name": "made", "tenant": "t"}), metadata=mine)
        turned = stub.RotateKey(RotateKeyRequest(id=made.key.id), metadata=mine)
        stub.RevokeKey(RevokeKeyRequest(id=turned.key.id), metadata=mine)
        for request, caller in ((ReloadRequest(), plain), (RevokeKeyRequest(id="absent"), ops)):
            try:
                (stub.Reload if caller is plain else stub.RevokeKey)(request, metadata=shown(caller))
            except grpc.RpcError:
                continue
            raise AssertionError("it was not refused")
        by_hand = add_key(keys, name="by hand")
        wait_until(lambda: any(line.get("name") == "by hand" for line in lines(file)), "the new key")
        change_key(keys, by_hand, models=("qwen*",))
        wait_until(lambda: any(line["event"] == "key_changed" for line in lines(file)), "its change")
        for _ in range(3):
            fail(gateway, "127.0.3.1", new_key().text)
        fail(gateway, "127.0.3.2", "")
        fail(gateway, "127.0.3.2", ended.text)
        moved = tmp_path / "moved.jsonl"
        file.rename(moved)
        gateway.config_file.write_text(yaml.safe_dump(config | {"retry": {"max_retries": 3}, "logging": {"level": "DEBUG"}}))
        stub.Reload(ReloadRequest(), metadata=mine)
        listed = stub.ListAuditEvents(ListAuditEventsRequest(page_size=2), metadata=mine)
        rest = stub.ListAuditEvents(ListAuditEventsRequest(page_token=listed.next_page_token), metadata=mine)
        wait_until(lambda: any(line.get("rpc") == "Reload" for line in lines(file)), "the file to be made anew")
    before, after = lines(moved), lines(file)
    assert stat.S_IMODE(file.stat().st_mode) == stat.S_IMODE(moved.stat().st_mode) == 0o600

    def found(event: str, entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
        chosen = [line for line in entries if line["event"] == event]
        return sorted(({name: line[name] for name in line if name not in ("time", "event")} for line in chosen), key=str)

    terms = {"name": "made", "tenant": "t"}
    hand = {"name": "by hand", "tenant": "team", "by": "file"}
    created = {event["key"]: event for event in found("key_created", before)}
    assert created == {
        by_hand.id: {"key": by_hand.id, "scopes": ["call"], **hand},
        made.key.id: {"key": made.key.id, "scopes": ["call"], **terms, "by": ops.id},
    }
    assert found("key_rotated", before) == [
        {"key": turned.key.id, **terms, "scopes": ["call"], "rotated_from": made.key.id, "by": ops.id}
    ]
    assert found("key_revoked", before) == [{"key": turned.key.id, **terms, "by": ops.id}]
    assert found("key_changed", before) == [{"key": by_hand.id, "changed": ["models"], **hand}]
    acts = [(act["rpc"], act["by"], act["result"]) for act in found("admin_action", before)]
    assert set(acts) == {
        ("CreateKey", ops.id, "done"),
        ("RotateKey", ops.id, "done"),
        ("RevokeKey", ops.id, "done"),
        ("RevokeKey", ops.id, "NOT_FOUND"),
        ("Reload", plain.id, "PERMISSION_DENIED"),
    }
    assert {act["address"] for act in found("admin_action", before)} == {"127.0.0.1"}
    assert found("configuration_reloaded", after) == [
        {
            "trigger": "rpc",
            "result": "applied",
            "changed": ["logging.level", "retry.max_retries"],
            "needs_restart": ["logging.level"],
        }
    ]
    assert found("authentication_failed", after) == [
        {"address": "127.0.3.1", "cause": "unknown", "times": 3},
        {"address": "127.0.3.2", "cause": "expired", "times": 1, "key": ended.id},
        {"address": "127.0.3.2", "cause": "missing", "times": 1},
    ]
    listed_events = [event.event for event in (*listed.audit_events, *rest.audit_events)]
    assert listed_events[:2] == ["admin_action", "configuration_reloaded"]
    assert sorted(listed_events) == sorted([*(line["event"] for line in before), "admin_action", "configuration_reloaded"])
    everything = moved.read_text() + file.read_text() + gateway.output
    for key in (ops, plain, ended, by_hand, NewKey("", made.secret), NewKey("", turned.secret)):
        assert key.text[19:] not in everything
        assert key.digest not in everything


def test_commands_show_it_and_reload_with_the_scope_that_it_takes(sim: Simulator, tmp_path: Path) -> None:
    keys = tmp_path / "keys.jsonl"
    ops = add_key(keys, scopes=(Scope.ADMIN,))
    config = calm_config(main={"url": sim.url, "models": [MODEL]}) | {"auth": {"mode": "keys", "keys_file": str(keys)}}
    with Gateway(config, tmp_path) as gateway:

        def run(*arguments: str) -> str:
            result = CliRunner().invoke(app, [*arguments, "--router", gateway.grpc], env={"LEXORA_API_KEY": ops.text})
            assert result.exit_code == 0, result.stderr
            return result.stdout

        assert "Nothing since the start" in run("audit")
        assert run("reload").startswith("unchanged")
        table = run("audit", "--limit", "5").splitlines()
        assert table[0].split() == ["time", "event", "facts"]
        assert [line.split()[1] for line in table[1:]] == ["admin_action", "configuration_reloaded", "admin_action"]
        assert f"by={ops.id}" in table[3]
        assert [event["event"] for event in json.loads(run("audit", "--limit", "1", "--json"))] == ["admin_action"]


def test_without_a_file_it_is_in_the_log(sim: Simulator, tmp_path: Path) -> None:
    keys = tmp_path / "keys.jsonl"
    ops = add_key(keys, scopes=ALL)
    config = calm_config(main={"url": sim.url, "models": [MODEL]})
    config |= {"auth": {"mode": "keys", "keys_file": str(keys)}, "logging": {"format": "json"}}
    with Gateway(config, tmp_path) as gateway:
        add_key(keys, name="new")
        wait_until(lambda: '"event":"key_created"' in gateway.output, "the event")
        with grpc.insecure_channel(gateway.grpc) as channel:
            Stub(channel).Reload(ReloadRequest(), metadata=shown(ops))
        wait_until(lambda: '"event":"admin_action"' in gateway.output, "the event")
    entries = [json.loads(line) for line in gateway.lines if line.startswith("{")]
    assert [entry["event"] for entry in entries if entry.get("logger") == "audit"] == [
        "key_created",
        "configuration_reloaded",
        "admin_action",
    ]


def test_a_file_that_cannot_be_written_ends_the_start(sim: Simulator, tmp_path: Path) -> None:
    config = calm_config(main={"url": sim.url, "models": [MODEL]}) | {"audit": {"file": str(tmp_path / "none" / "audit.jsonl")}}
    with pytest.raises(AssertionError, match="No such file or directory"):
        Gateway(config, tmp_path)
