"""Tokens of real issuers over both wires: what they may do, rotation of keys under load, outages."""

import asyncio
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import msgspec
import pytest

from lexora.v1.principal_pb2 import GetPrincipalRequest
from lexora.v1.reload_pb2 import ReloadRequest
from tests.e2e.conftest import MODEL
from tests.support import load
from tests.support.issuer import Issuer, SigningKey, unsigned
from tests.support.queueing import CHAT, Stub, grpc_stub
from tests.support.servers import Facade, Gateway, Simulator, calm_config, metric
from tests.support.wire import wait_until

HI = {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2}
REFRESH, COOLDOWN = 0.5, 0.2
CLAIMS = {"tenant": "org", "models": "models", "scopes": "scope"}


@pytest.fixture(scope="module")
def issuer() -> Iterator[Issuer]:
    with Issuer() as started:
        yield started


@pytest.fixture(scope="module")
def other() -> Iterator[Issuer]:
    with Issuer() as started:
        yield started


@pytest.fixture(scope="module")
def gateway(sim: Simulator, folder: Path, issuer: Issuer, other: Issuer) -> Iterator[Gateway]:
    jwks = folder / "jwks.json"
    jwks.write_text(json.dumps(other.jwks()))
    providers = [
        issuer.provider(name="corp", claims=CLAIMS, refresh=REFRESH, cooldown=COOLDOWN, revoked_file=str(folder / "revoked")),
        other.provider(name="lab", jwks_url=None, jwks_file=str(jwks)),
    ]
    config = calm_config(main={"url": sim.url, "models": [MODEL]})
    (folder / "revoked").write_text("# none yet\n")
    keys = folder / "keys"
    keys.touch(0o600)
    keys.write_text('{"lexora_keys":1}\n')
    with Gateway(config | {"auth": {"mode": "keys+jwt", "keys_file": str(keys), "jwt": providers}}, folder) as process:
        yield process


def token(issuer: Issuer, key: SigningKey | None = None, **claims: Any) -> str:
    return issuer.token(key, **({"models": ["*"], "scope": "lexora:call"} | claims))


def bearer(credential: str) -> dict[str, str]:
    return {"authorization": f"Bearer {credential}"}


def test_a_token_is_its_tenant_with_its_models_and_scopes(http: httpx.Client, issuer: Issuer) -> None:
    mine = bearer(token(issuer))
    assert http.post(CHAT, json=HI, headers=mine).status_code == 200
    assert MODEL in [model["id"] for model in http.get("/v1/models", headers=mine).json()["data"]]
    # In each of the headers that a key may be in.
    for header in ("x-api-key", "api-key"):
        assert http.post(CHAT, json=HI, headers={header: token(issuer)}).status_code == 200
    limited = http.post(CHAT, json=HI, headers=bearer(token(issuer, models=["other-*"])))
    assert (limited.status_code, limited.json()["error"]["code"]) == (404, "model_not_found")
    without = http.get("/stats", headers=mine)
    assert (without.status_code, "`observe`" in without.json()["error"]["message"]) == (403, True)
    assert http.get("/stats", headers=bearer(token(issuer, scope="lexora:observe"))).status_code == 200


def test_a_token_of_nearly_16_kib_passes_both_wires(gateway: Gateway, issuer: Issuer, http: httpx.Client) -> None:
    long = token(issuer, groups=["g" * 50] * 220)
    assert 14_000 < len(long) < 16_384
    assert http.post(CHAT, json=HI, headers=bearer(long)).status_code == 200
    # It is read, and may not observe.
    assert http.post("/ui/sign-in", json={"key": long}, headers={"x-lexora-ui": "1"}).status_code == 403
    with grpc.insecure_channel(gateway.grpc) as channel:
        shown = (("authorization", f"Bearer {long}"),)
        assert Stub(channel).GetPrincipal(GetPrincipalRequest(), metadata=shown, timeout=10).key == "corp:alice"


async def test_grpc_asks_for_the_same(gateway: Gateway, issuer: Issuer, other: Issuer) -> None:
    async with grpc_stub(gateway) as stub:

        def shown(credential: str) -> tuple[tuple[str, str], ...]:
            return (("authorization", f"Bearer {credential}"),)

        found = await stub.GetPrincipal(GetPrincipalRequest(), metadata=shown(token(issuer)))
        assert (found.tenant, found.key, list(found.models)) == ("acme", "corp:alice", ["*"])
        found = await stub.GetPrincipal(GetPrincipalRequest(), metadata=shown(other.token(org="research")))
        assert (found.tenant, found.key) == ("research", "lab:alice")
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.GetPrincipal(GetPrincipalRequest(), metadata=shown(token(issuer, exp=0)))
        assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.Reload(ReloadRequest(), metadata=shown(token(issuer)))
        assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED


def test_a_facade_of_its_own_passes_tokens_on(gateway: Gateway, issuer: Issuer) -> None:
    with Facade(gateway) as facade, httpx.Client(base_url=facade.http, timeout=10, verify=False) as http:
        assert http.post(CHAT, json=HI, headers=bearer(token(issuer))).status_code == 200
        expired = http.post(CHAT, json=HI, headers=bearer(token(issuer, exp=0)))
        assert (expired.status_code, expired.json()["error"]["message"]) == (401, "The token has expired.")
        assert expired.headers["www-authenticate"] == "Bearer"
        assert http.get("/metrics", headers=bearer(token(issuer))).status_code == 403
        assert http.get("/metrics", headers=bearer(token(issuer, scope="lexora:observe"))).status_code == 200


def test_what_has_a_tokens_shape_is_never_tried_as_a_key(http: httpx.Client, gateway: Gateway, issuer: Issuer) -> None:
    stranger = SigningKey("ES256", "first")
    refused = {
        "expired": token(issuer, exp=0),
        "signature": stranger.sign(issuer.claims(models=["*"])),
        "algorithm": unsigned({"alg": "none"}, issuer.claims()),
        "malformed": "not.a.token",
        "none of those": token(issuer, iss="https://elsewhere.example"),
        "`models`": token(issuer, models=[]),
        "tenant": token(issuer, org=None),
    }
    for said, credential in refused.items():
        answer = http.post(CHAT, json=HI, headers=bearer(credential))
        assert (answer.status_code, answer.json()["error"]["code"]) == (401, "unauthenticated"), answer.text
        assert said in answer.json()["error"]["message"]
        assert "acme" not in answer.text
    seen = gateway.output
    assert not any(part in seen for credential in refused.values() for part in credential.split(".") if len(part) > 20)


def posts(client: load.Client, credential: str) -> Any:
    return client.post(CHAT, HI, authorization=f"Bearer {credential}")


async def test_keys_are_rotated_under_load_and_no_call_fails(gateway: Gateway, issuer: Issuer, http: httpx.Client) -> None:
    """Each token is new, so each is verified; each key signs at once when it is published, while others guess key ids."""
    rotating, calls, guesses = asyncio.Event(), list[int](), list[int]()

    async def caller(client: load.Client, number: int) -> None:
        count = 0
        while not rotating.is_set():
            count += 1
            calls.append((await posts(client, token(issuer, issuer.keys[-1], sub=f"user-{number}-{count}"))).status)

    async def guesser(client: load.Client) -> None:
        stranger = SigningKey("ES256", "guess")
        for number in range(1000):
            if rotating.is_set():
                return
            guesses.append((await posts(client, stranger.sign(issuer.claims(), kid=f"guess-{number}"))).status)

    before, begun = issuer.asked["/jwks"], time.monotonic()
    async with load.client(gateway.http) as client, asyncio.timeout(50), asyncio.TaskGroup() as group:
        for number in range(4):
            group.create_task(caller(client, number))
        group.create_task(guesser(client))
        for number in range(5):
            known = len(calls)
            while len(calls) < known + 20:  # noqa: ASYNC110 - calls have no event
                await asyncio.sleep(0.01)
            issuer.keys = [issuer.keys[-1], SigningKey(("ES256", "RS256", "EdDSA")[number % 3], f"rotated-{number}")]
        rotating.set()
    assert set(calls) == {200}
    assert len(calls) > 100
    assert set(guesses) <= {401, 429}
    assert issuer.asked["/jwks"] - before <= (time.monotonic() - begun) * (1 / COOLDOWN + 1 / REFRESH) + 3


def test_a_token_that_is_revoked_ends_before_its_time(
    gateway: Gateway, http: httpx.Client, issuer: Issuer, folder: Path
) -> None:
    def status(credential: str) -> int:
        return http.post(CHAT, json=HI, headers=bearer(credential)).status_code

    first, second, new = (token(issuer, jti=name) for name in ("t-1", "t-2", "t-3"))
    assert [status(first), status(second)] == [200, 200]  # they are remembered as good from here on
    (folder / "revoked.new").write_text("# lost with a laptop\n\nt-1\nt-3\n")
    (folder / "revoked.new").rename(folder / "revoked")
    wait_until(lambda: status(first) == 401, "the revocation")
    assert [status(new), status(second), status(token(issuer))] == [401, 200, 200]
    answer = http.post(CHAT, json=HI, headers=bearer(first)).json()["error"]
    assert (answer["code"], answer["message"]) == ("unauthenticated", "The token was revoked.")
    (folder / "revoked").unlink()
    wait_until(lambda: "revoked_tokens_unreadable" in gateway.output, "the loss was seen")
    assert [status(first), status(second)] == [401, 200]
    (folder / "revoked").write_text("")
    wait_until(lambda: status(first) == 200, "it is taken back")


async def test_a_flood_of_unknown_keys_takes_no_place_of_another_address(gateway: Gateway, other: Issuer, folder: Path) -> None:
    """300 tokens of keys that are nowhere: they wait for the next reading of the issuer's keys, and fill all 256 places."""
    stranger, new = SigningKey("ES256", "guess"), SigningKey("ES256", "published")

    async def posted(client: load.Client, credential: str, address: str) -> int:
        return (await client.post(CHAT, HI, authorization=f"Bearer {credential}", x_forwarded_for=address)).status

    async with load.client(gateway.http) as client, asyncio.timeout(50):
        assert await posted(client, other.token(), "198.51.100.1") == 200
        flood = [
            asyncio.create_task(posted(client, stranger.sign(other.claims(), kid=f"unknown-{number}"), "192.0.2.9"))
            for number in range(300)
        ]
        await asyncio.wait(flood, return_when=asyncio.FIRST_COMPLETED)
        assert 503 in {task.result() for task in flood if task.done()}  # there is no place left
        known = await posted(client, other.token(sub="bob"), "198.51.100.2")
        assert (known, any(not task.done() for task in flood)) == (200, True)
        other.keys.append(new)
        (folder / "jwks.json").write_text(json.dumps(other.jwks()))
        found = await asyncio.gather(*(posted(client, other.token(new), f"198.51.100.{number}") for number in range(8)))
        assert found == [200] * 8
        assert set(await asyncio.gather(*flood)) <= {401, 429, 503}


def test_an_outage_of_the_issuer_keeps_what_is_known_and_refuses_nothing(
    gateway: Gateway, http: httpx.Client, issuer: Issuer
) -> None:
    issuer.stop()
    wait_until(lambda: "issuer_keys_unreadable" in gateway.output, "the outage was seen")
    assert http.post(CHAT, json=HI, headers=bearer(token(issuer, sub="new"))).status_code == 200
    unknown = http.post(CHAT, json=HI, headers=bearer(token(issuer, SigningKey("ES256", "next"))))
    assert (unknown.status_code, unknown.json()["error"]["code"]) == (503, "access_unavailable"), unknown.text
    assert int(unknown.headers["retry-after"]) >= 1
    assert http.get("/health/ready").status_code == 200
    observer = bearer(token(issuer, scope="lexora:observe"))
    assert metric(http.get("/metrics", headers=observer).text, "lexora_issuer_keys_readable", issuer="corp") == 0
    assert metric(http.get("/metrics", headers=observer).text, "lexora_issuer_keys", issuer="corp") >= 1
    issuer.keys.append(SigningKey("ES256", "next"))
    issuer.start()
    wait_until(
        lambda: http.post(CHAT, json=HI, headers=bearer(token(issuer, issuer.keys[-1]))).status_code == 200, "it is back"
    )
    assert metric(http.get("/metrics", headers=observer).text, "lexora_issuer_keys_readable", issuer="corp") == 1


def test_a_start_without_the_issuer_goes_on(sim: Simulator, tmp_path: Path) -> None:
    with Issuer() as late:
        late.stop()
        config = calm_config(main={"url": sim.url, "models": [MODEL]})
        auth = {"mode": "jwt", "jwt": [late.provider(jwks_url=None, discovery=True)]}
        with Gateway(config | {"auth": auth}, tmp_path) as gateway, httpx.Client(base_url=gateway.http, verify=False) as http:
            assert http.get("/health/ready").status_code == 200
            assert http.post(CHAT, json=HI, headers=bearer(late.token())).status_code == 503
            assert http.post(CHAT, json=HI).status_code == 401
            assert http.post(CHAT, json=HI, headers=bearer("sk-lx-a-key")).status_code == 401
            late.start()
            wait_until(lambda: http.post(CHAT, json=HI, headers=bearer(late.token())).status_code == 200, "the keys are there")


def test_a_file_of_keys_and_the_configuration_change_while_it_serves(
    gateway: Gateway, http: httpx.Client, folder: Path, other: Issuer
) -> None:
    new = SigningKey("EdDSA", "new")
    other.keys.append(new)
    (folder / "jwks.json").write_text(json.dumps(other.jwks()))
    assert http.post(CHAT, json=HI, headers=bearer(other.token(new))).status_code == 200
    config = msgspec.yaml.decode(gateway.config_file.read_bytes())
    config["auth"]["jwt"][1]["audience"] = ["another"]
    gateway.config_file.write_bytes(msgspec.yaml.encode(config))
    wait_until(lambda: http.post(CHAT, json=HI, headers=bearer(other.token(new))).status_code == 401, "the new audience")
    assert http.post(CHAT, json=HI, headers=bearer(other.token(new, aud="another"))).status_code == 200
