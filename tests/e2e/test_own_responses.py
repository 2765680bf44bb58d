"""A stored response is of the tenant that made it, whichever way another one asks for it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest

from lexora.v1 import call_pb2
from lexora.v1.raw_pb2 import RawCall
from lexora.v1.router_pb2 import GenerateRequest
from lexora_router.access.key_format import NewKey
from tests.e2e.conftest import MODEL
from tests.support.keys import add_key
from tests.support.queueing import Stub
from tests.support.servers import Gateway, Simulator, calm_config

PATH = "/v1/responses"
UNKNOWN = "resp_" + "0" * 32


@pytest.fixture(scope="module")
def keys(folder: Path) -> dict[str, NewKey]:
    return {tenant: add_key(folder / "keys.jsonl", tenant=tenant) for tenant in ("acme", "other")}


def config(sim: Simulator, folder: Path) -> dict[str, Any]:
    config = calm_config(main={"url": sim.url, "models": [MODEL]})
    return config | {"auth": {"mode": "keys", "keys_file": str(folder / "keys.jsonl")}}


@pytest.fixture(scope="module")
def gateway(sim: Simulator, folder: Path, keys: dict[str, NewKey]) -> Iterator[Gateway]:
    with Gateway(config(sim, folder), folder) as process:
        yield process


def client(gateway: Gateway, key: NewKey) -> httpx.Client:
    return httpx.Client(base_url=gateway.http, headers={"x-api-key": key.text}, timeout=10, verify=False)


def by_grpc(gateway: Gateway, key: NewKey, method: str, path: str) -> grpc.StatusCode:
    with grpc.insecure_channel(gateway.grpc) as channel:
        request = GenerateRequest(call=call_pb2.Call(raw=RawCall(method=method, path=path)))
        try:
            Stub(channel).Generate(request, metadata=(("x-api-key", key.text),))
        except grpc.RpcError as error:
            return error.code()  # type: ignore[attr-defined, no-any-return]
    return grpc.StatusCode.OK


WAYS = [("GET", ""), ("GET", "/input_items"), ("POST", "/cancel"), ("DELETE", "")]


def test_another_tenant_s_response_is_not_there(
    gateway: Gateway, sim: Simulator, keys: dict[str, NewKey], tmp_path: Path, folder: Path
) -> None:
    with client(gateway, keys["acme"]) as acme, client(gateway, keys["other"]) as other:
        made = acme.post(PATH, json={"model": MODEL, "input": "Hi", "max_output_tokens": 2}).json()["id"]
        sim.clear()
        for method, below in WAYS:
            found = [other.request(method, f"{PATH}/{name}{below}") for name in (made, UNKNOWN)]
            assert [answer.status_code for answer in found] == [404, 404]
            assert found[0].text.replace(made, "ID") == found[1].text.replace(UNKNOWN, "ID")
            assert by_grpc(gateway, keys["other"], method, f"{PATH}/{made}{below}") is grpc.StatusCode.NOT_FOUND
        ask = {"model": MODEL, "input": "What did I say?", "max_output_tokens": 2}
        for body in ({"previous_response_id": made}, {"previous_response_id": UNKNOWN}):
            assert other.post(PATH, json=ask | body).status_code == 404
        assert other.post(PATH, json=ask | {"request_id": made}).status_code == 400
        twice = b'{"model":"%s","input":"Hi","previous_response_id":"%s","previous_response_id":null}' % (
            MODEL.encode(),
            made.encode(),
        )
        for content in (twice, twice.replace(b"previous_response_id", b"Previous_Response_Id")):
            refused = other.post(PATH, content=content, headers={"content-type": "application/json"})
            assert (refused.status_code, refused.json()["error"]["param"]) == (400, "previous_response_id")
        assert sim.posts() == []
        assert [acme.request(method, f"{PATH}/{made}{below}").status_code for method, below in WAYS[:3]] == [200, 200, 400]
        assert acme.post(PATH, json=ask | {"previous_response_id": made}).status_code == 200
        with Gateway(config(sim, folder), tmp_path) as again, client(again, keys["acme"]) as later:
            assert later.get(f"{PATH}/{made}").status_code == 404  # whose it is, is not known any more
        assert acme.delete(f"{PATH}/{made}").status_code == 200
