"""`auth.mode: keys` with real processes: the same credentials by HTTP and by gRPC, while the file of keys changes."""

import base64
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import grpc
import httpx
import openai
import pytest
from typer.testing import CliRunner

from lexora.v1.models_pb2 import ListModelsRequest
from lexora.v1.principal_pb2 import SCOPE_CALL, GetPrincipalRequest
from lexora_cli.main import app
from lexora_contract.status import failed_of
from lexora_router.access.key_format import NewKey, new_key
from tests.support.keys import ALL, PAST, add_key, change_key, mistyped
from tests.support.queueing import CHAT, MODEL, Stub
from tests.support.servers import Gateway, Simulator, calm_config
from tests.support.wire import wait_until

HI = {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2}
# What the issue allows a revocation.
IN_FORCE_SECONDS = 2.0


@pytest.fixture(scope="module")
def keys_file(folder: Path) -> Path:
    return folder / "keys.jsonl"


@pytest.fixture(scope="module")
def key(keys_file: Path) -> NewKey:
    return add_key(keys_file, name="first", scopes=ALL)


@pytest.fixture(scope="module")
def closed(sim: Simulator, folder: Path, keys_file: Path, key: NewKey) -> Iterator[Gateway]:
    config = calm_config(main={"url": sim.url, "models": [MODEL]})
    config["auth"] = {"mode": "keys", "keys_file": str(keys_file)}
    with Gateway(config, folder) as process:
        process.headers = bearer(key)
        yield process


def ask(gateway: Gateway, headers: dict[str, str] | list[tuple[str, str]], path: str = CHAT, sender: str = "127.0.0.1") -> Any:
    transport = httpx.HTTPTransport(local_address=sender, verify=False)
    with httpx.Client(base_url=gateway.http, transport=transport, timeout=10) as client:
        return client.post(path, json=HI, headers=headers)


def by_grpc(gateway: Gateway, *metadata: tuple[str, str]) -> tuple[grpc.StatusCode, str]:
    """Code and message of a call with this metadata."""
    with grpc.insecure_channel(gateway.grpc) as channel:
        try:
            Stub(channel).ListModels(ListModelsRequest(), metadata=metadata, timeout=10)
        except grpc.RpcError as error:
            return error.code(), str(error.details())  # type: ignore[attr-defined]  # a client's error is a Call
    return grpc.StatusCode.OK, ""


def bearer(key: NewKey) -> dict[str, str]:
    return {"authorization": f"Bearer {key.text}"}


@pytest.mark.parametrize(
    ("name", "form"),
    [("Authorization", "Bearer {}"), ("authorization", "bEARER   {}"), ("x-api-key", "{}"), ("api-key", "{}")],
)
def test_a_key_is_taken_from_each_header_on_both_wires(closed: Gateway, key: NewKey, name: str, form: str) -> None:
    value = form.format(key.text)
    answer = ask(closed, {name: value})
    assert (answer.status_code, answer.json()["object"]) == (200, "chat.completion")
    assert by_grpc(closed, (name.lower(), value)) == (grpc.StatusCode.OK, "")


def bad_credentials(key: NewKey) -> dict[str, tuple[tuple[str, str], ...]]:
    other = new_key().text
    return {
        "none": (),
        "empty": (("authorization", ""),),
        "unknown": (("x-api-key", other),),
        "mistyped": (("authorization", f"Bearer {mistyped(key).text}"),),
        "cut": (("authorization", f"Bearer {key.text[:-1]}"),),
        "public part": (("authorization", f"Bearer sk-lx-{key.id}"),),
        "digest": (("authorization", f"Bearer {key.digest}"),),
        "basic": (("authorization", "Basic " + base64.b64encode(f"x:{key.text}".encode()).decode()),),
        "two": (("authorization", f"Bearer {key.text}"), ("x-api-key", other)),
        "two of a kind": (("x-api-key", other), ("x-api-key", key.text)),
        "two bearers": (("authorization", f"Bearer {other}"), ("authorization", f"Bearer {key.text}")),
        "long": (("x-api-key", "k" * 17_000),),
    }


def test_what_does_not_hold_is_refused_alike_on_both_wires(closed: Gateway, key: NewKey, sim: Simulator) -> None:
    sim.clear()
    for name, headers in bad_credentials(key).items():
        answer = ask(closed, list(headers), sender="127.0.1.1")
        error = answer.json()["error"]
        assert answer.status_code == 401, name
        assert (error["type"], error["code"]) == ("authentication_error", "unauthenticated")
        assert answer.headers["www-authenticate"] == "Bearer"
        code, message = by_grpc(closed, *headers)
        assert (code, message) == (grpc.StatusCode.UNAUTHENTICATED, error["message"]), name
        assert key.text not in answer.text
    assert ask(closed, {}, path=f"{CHAT}?api_key={key.text}&key={key.text}", sender="127.0.1.1").status_code == 401
    assert not sim.posts()
    assert key.text not in closed.output
    assert key.text[-51:] not in closed.output
    assert closed.metric("lexora_auth_failures_total") >= 18
    assert httpx.get(f"{closed.http}/health", verify=False).json()["auth"] == "on"


def test_the_anthropic_dialect_has_its_own_shape_of_a_refusal(closed: Gateway) -> None:
    answer = ask(closed, {}, path="/v1/messages")
    assert (answer.status_code, answer.json()["error"]["type"]) == (401, "authentication_error")


def test_a_caller_sees_what_it_is(closed: Gateway, keys_file: Path) -> None:
    key = add_key(keys_file, name="seen", tenant="acme", models=("qwen*",), operations=("/v1/chat/*",))
    wait_until(lambda: ask(closed, bearer(key)).status_code == 200, "a new key to hold")
    with grpc.insecure_channel(closed.grpc) as channel:
        metadata = (("authorization", f"Bearer {key.text}"),)
        seen = Stub(channel).GetPrincipal(GetPrincipalRequest(), metadata=metadata)
    assert (seen.tenant, seen.key, seen.name) == ("acme", key.id, "seen")
    assert (list(seen.models), list(seen.operations), list(seen.scopes)) == (["qwen*"], ["/v1/chat/*"], [SCOPE_CALL])


def test_a_key_ends_by_revocation_and_by_its_time(closed: Gateway, keys_file: Path) -> None:
    for change in ({"revoked": PAST}, {"expires": PAST}):
        key = add_key(keys_file)
        wait_until(lambda key=key: ask(closed, bearer(key)).status_code == 200, "a new key to hold")
        changed = time.monotonic()
        change_key(keys_file, key, **change)
        wait_until(lambda key=key: ask(closed, bearer(key)).status_code == 401, "the key to hold no more")
        assert time.monotonic() - changed < IN_FORCE_SECONDS
        assert by_grpc(closed, ("x-api-key", key.text))[0] is grpc.StatusCode.UNAUTHENTICATED


def test_a_file_that_cannot_be_read_keeps_its_keys_and_condemns_no_other(closed: Gateway, keys_file: Path, key: NewKey) -> None:
    good, unknown = keys_file.read_bytes(), new_key()
    for broken in (good[:-20], good.replace(b'"tenant"', b'"tenants"', 1), b""):
        keys_file.write_bytes(broken)
        wait_until(lambda: ask(closed, bearer(unknown)).status_code == 503, "the file to be found unreadable")
        answer = ask(closed, bearer(unknown))
        assert (answer.json()["error"]["code"], answer.headers["retry-after"]) == ("access_unavailable", "1")
        assert by_grpc(closed, ("x-api-key", unknown.text))[0] is grpc.StatusCode.UNAVAILABLE
        assert ask(closed, bearer(key)).status_code == 200
        assert ask(closed, bearer(mistyped(key))).status_code == 401
        assert httpx.get(f"{closed.http}/health/ready", verify=False).status_code == 200
        assert closed.metric("lexora_keys_readable") == 0
        keys_file.write_bytes(good)
        wait_until(lambda: ask(closed, bearer(unknown)).status_code == 401, "the mended file to take over")
        assert closed.metric("lexora_keys_readable") == 1
    assert closed.output.count("key_file_unreadable") == 3


def test_guessers_wait_and_others_behind_the_same_address_do_not(closed: Gateway, key: NewKey) -> None:
    statuses = [ask(closed, bearer(new_key()), sender="127.0.2.1").status_code for _ in range(30)]
    assert statuses[0] == 401
    assert statuses[-1] == 429
    assert ask(closed, bearer(key), sender="127.0.2.1").status_code == 200
    refused = ask(closed, bearer(new_key()), sender="127.0.2.1")
    assert (refused.json()["error"]["code"], int(refused.headers["retry-after"]) > 0) == ("too_many_attempts", True)
    assert ask(closed, {}, sender="127.0.2.1").status_code == 401
    # They are counted, and fill neither the log nor the recent calls.
    assert closed.metric("lexora_requests_total", status="429") >= 10
    wait_until(lambda: "UNAUTHENTICATED" in closed.output, "the lines of the first ones")
    assert "TOO_MANY_ATTEMPTS" not in closed.output
    recent = httpx.get(f"{closed.http}/stats/recent", headers=closed.headers, verify=False).json()["calls"]
    assert 429 not in {call["status"] for call in recent}
    assert ask(closed, bearer(new_key()), sender="127.0.2.2").status_code == 401


def test_a_gateway_does_not_start_without_its_keys(sim: Simulator, tmp_path: Path) -> None:
    config = calm_config(main={"url": sim.url, "models": [MODEL]}) | {"auth": {"mode": "keys", "keys_file": "absent.jsonl"}}
    with pytest.raises(AssertionError, match=r"lexora: absent\.jsonl: cannot be read: No such file"):
        Gateway(config, tmp_path)
    checked = CliRunner().invoke(app, ["check", "--config", str(tmp_path / "lexora_config.yaml")])
    assert checked.exit_code == 1
    assert "auth.keys_file: absent.jsonl: cannot be read: No such file or directory; `lexora keys create" in checked.stderr


def test_an_open_gateway_says_so_once(sim: Simulator, tmp_path: Path) -> None:
    config = calm_config(main={"url": sim.url, "models": [MODEL]})
    config["server"]["host"] = "0.0.0.0"
    with Gateway(config, tmp_path) as gateway:
        port = gateway.http.rpartition(":")[2]
        assert httpx.get(f"http://127.0.0.1:{port}/health", verify=False).json()["auth"] == "off"
    said = [line for line in gateway.lines if "auth.mode" in line]
    assert len(said) == 1
    assert "server.host: any machine that reaches 0.0.0.0 may call and administer: auth.mode is off" in said[0]
    checked = CliRunner().invoke(app, ["check", "--config", str(gateway.config_file), "--json"])
    assert [opening.rpartition("(")[2] for opening in json.loads(checked.stdout)["open"]] == [
        "auth.mode: off)",
        "auth.mode: off)",
        "server.tls)",
    ]
    shown = CliRunner().invoke(app, ["check", "--config", str(gateway.config_file)])
    assert shown.stderr.count("open to the network: ") == 3


def test_grpc_details_name_the_reason(closed: Gateway) -> None:
    from google.rpc.status_pb2 import Status

    with grpc.insecure_channel(closed.grpc) as channel, pytest.raises(grpc.RpcError) as caught:
        Stub(channel).ListModels(ListModelsRequest())
    trailing = dict(caught.value.trailing_metadata())  # type: ignore[attr-defined]
    assert failed_of(Status.FromString(trailing["grpc-status-details-bin"])).reason == "UNAUTHENTICATED"


def test_the_usual_client_libraries_show_their_key_and_understand_a_refusal(closed: Gateway, key: NewKey) -> None:
    good = openai.OpenAI(base_url=f"{closed.http}/v1", api_key=key.text)
    assert MODEL in [model.id for model in good.models.list()]
    with pytest.raises(openai.AuthenticationError) as refused:
        good.with_options(api_key=new_key().text).chat.completions.create(**HI)
    assert refused.value.code == "unauthenticated"
    azure = openai.AzureOpenAI(base_url=f"{closed.http}/v1", api_key=key.text, api_version="v1")
    assert MODEL in [model.id for model in azure.models.list()]
    claude = anthropic.Anthropic(base_url=closed.http, api_key=key.text)
    assert claude.messages.create(**HI).content
    with pytest.raises(anthropic.AuthenticationError, match="authentication_error"):
        claude.with_options(api_key=new_key().text).messages.create(**HI)
    token = anthropic.Anthropic(base_url=closed.http, auth_token=key.text)
    assert token.messages.create(**HI).content
