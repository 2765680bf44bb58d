"""Certificates as credentials, and the ways to a router with TLS: commands, the client library, a facade in its own process."""

import os
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest

from lexora.client import AsyncClient, Client, LexoraError, tls_credentials
from lexora.v1.principal_pb2 import SCOPE_ADMIN, SCOPE_CALL, GetPrincipalRequest
from tests.support.engine import ScriptedEngine
from tests.support.keys import add_key
from tests.support.process import Process
from tests.support.raw_server import RawRequest, reply
from tests.support.servers import LEXORA, Gateway, base_config
from tests.support.tls import Authority, Issued, uri_certificate, write
from tests.support.wire import wait_until

CERTIFICATES: dict[str, dict[str, Any]] = {
    "spiffe://fleet/batch/*": {"tenant": "batch", "models": ["m"], "rate": 50.0},
    "spiffe://fleet/batch/ops": {"tenant": "ops", "scopes": ["call", "observe", "admin"], "operations": ["/v1/models"]},
    "Web.Internal": {"tenant": "web"},
    "*@people.example": {"tenant": "people"},
}
ANSWER = reply(b'{"id":"1","object":"chat.completion","choices":[]}')
CHAT = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


@dataclass
class Rig:
    gateway: Gateway
    authority: Authority
    folder: Path
    engine: ScriptedEngine

    def issue(self, *names: str) -> Issued:
        if "://" in names[0]:
            return uri_certificate(self.authority, "client", names[0])
        return self.authority.issue("client", *names)

    def reach(self, pair: Issued | None) -> dict[str, str]:
        """What the environment of a client has."""
        shown = {} if pair is None else {"LEXORA_CERT": str(pair.cert), "LEXORA_KEY": str(pair.key)}
        return {"LEXORA_TARGET": self.gateway.grpc, "LEXORA_CA": str(self.authority.ca)} | shown

    def run(self, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("LEXORA_")}
        command = [*LEXORA, *arguments]
        return subprocess.run(command, env=clean | environ, capture_output=True, text=True, timeout=60, check=False)

    def https(self, pair: Issued | None) -> httpx.Client:
        trusted = ssl.create_default_context(cafile=str(self.authority.ca))
        if pair is not None:
            trusted.load_cert_chain(*pair.paths())
        return httpx.Client(base_url=self.gateway.http, verify=trusted, timeout=20)


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    folder = tmp_path_factory.mktemp("tls")
    authority = Authority(folder)
    server = authority.issue("server")
    keys = folder / "keys.jsonl"
    keys.write_text('{"lexora_keys":1}\n')
    keys.chmod(0o600)
    with ScriptedEngine("m", "n") as engine:
        engine.answer = ANSWER
        config = base_config(main={"url": engine.url, "models": ["m", "n"]})
        tls = {"cert": str(server.cert), "key": str(server.key), "client_ca": str(authority.ca), "client_auth": "optional"}
        config["server"]["tls"] = tls | {"grpc_client_auth": "required"}
        config["reload"] = {"interval": 0.1}
        config["auth"] = {"mode": "keys", "keys_file": str(keys), "certificates": CERTIFICATES}
        with Gateway(config, folder) as gateway:
            yield Rig(gateway, authority, folder, engine)


NAMED = [
    (("spiffe://fleet/batch/7",), "batch", "spiffe://fleet/batch/7"),
    (("spiffe://fleet/batch/ops",), "ops", "spiffe://fleet/batch/ops"),
    (("WEB.internal",), "web", "web.internal"),
    (("eve@people.example",), "people", "eve@people.example"),
    (("web.internal.evil.example", "web.internal"), "web", "web.internal"),
    (("spiffe://fleet/other",), None, ""),
    (("web.internal.evil.example",), None, ""),
    (("eve@people.example.evil.example",), None, ""),
]


@pytest.mark.parametrize(("names", "tenant", "key"), NAMED, ids=[",".join(names) for names, _, _ in NAMED])
def test_a_name_in_a_certificate_makes_a_principal_on_both_wires(
    rig: Rig, names: tuple[str, ...], tenant: str | None, key: str
) -> None:
    pair = rig.issue(*names)
    credentials = tls_credentials(str(rig.authority.ca), *pair.paths())
    with rig.https(pair) as http, Client(rig.gateway.grpc, credentials=credentials, retries=0) as client:
        listed = http.get("/v1/models")
        if tenant is None:
            assert (listed.status_code, listed.json()["error"]["code"]) == (401, "unauthenticated")
            with pytest.raises(LexoraError) as refused:
                client.models()
            assert refused.value.reason == "UNAUTHENTICATED"
            return
        assert listed.status_code == 200
        found = client.router.GetPrincipal(GetPrincipalRequest(), timeout=20)
        assert (found.tenant, found.key) == (tenant, key)
        assert {model["id"] for model in listed.json()["data"]} == ({"m"} if tenant == "batch" else {"m", "n"})
        answer = http.post("/v1/chat/completions", json=CHAT)
        assert answer.status_code == (403 if tenant == "ops" else 200)
        assert set(found.scopes) >= ({SCOPE_CALL, SCOPE_ADMIN} if tenant == "ops" else {SCOPE_CALL})
        assert (SCOPE_ADMIN in found.scopes) == (tenant == "ops")


def test_a_certificate_counts_before_a_large_body_is_there(rig: Rig) -> None:
    chat = {**CHAT, "messages": [{"role": "user", "content": "x" * 1_000_000}]}
    with rig.https(rig.issue("web.internal")) as http, rig.https(None) as strangers:
        assert http.post("/v1/chat/completions", json=chat).status_code == 200
        assert http.post("/v1/chat/completions", json=CHAT, headers={"expect": "100-continue"}).status_code == 200
        assert strangers.post("/v1/chat/completions", json=chat).status_code == 401


def test_without_a_certificate_https_asks_for_a_key(rig: Rig) -> None:
    with rig.https(None) as http:
        assert http.get("/v1/models").status_code == 401
        assert http.get("/health/live").status_code == 200


def test_commands_reach_a_router_with_tls(rig: Rig) -> None:
    ops = rig.reach(rig.issue("spiffe://fleet/batch/ops"))
    options = ["--router", ops["LEXORA_TARGET"], "--ca", ops["LEXORA_CA"]]
    options += ["--cert", ops["LEXORA_CERT"], "--key", ops["LEXORA_KEY"]]
    for command in ("models", "status", "reload"):
        done = rig.run(command, *options)
        assert done.returncode == 0, done.stderr
    router = ["--router", ops["LEXORA_TARGET"]]
    named = {name: value for name, value in ops.items() if name != "LEXORA_TARGET"}
    assert "may not use /v1/chat/completions" in rig.run("explain", *router, "--model", "m", **named).stdout
    assert rig.run("top", "--once", *router, **named).returncode == 0


REFUSED = [
    ({}, "took the connection and closed it: if it speaks TLS, add --tls or --ca FILE"),
    ({"LEXORA_TLS": "1"}, "is not trusted: name its authority with --ca FILE"),
    ({"LEXORA_CA": "ca"}, "ended the connection: it may want a certificate (--cert FILE, --key FILE), or speak no TLS"),
    ({"LEXORA_CA": "/nowhere"}, "cannot read /nowhere: No such file or directory"),
]


@pytest.mark.parametrize(("environ", "message"), REFUSED, ids=["clear", "unknown authority", "no certificate", "no file"])
def test_a_command_says_what_is_missing(rig: Rig, environ: dict[str, str], message: str) -> None:
    given = {name: str(rig.authority.ca) if value == "ca" else value for name, value in environ.items()}
    done = rig.run("models", "--router", rig.gateway.grpc, **given)
    assert done.returncode != 0
    assert message in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


async def test_the_client_library(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (rig.reach(rig.issue("web.internal"))).items():
        monkeypatch.setenv(name, value)
    with Client.from_env() as client:
        assert [model.id for model in client.models()] == ["m", "n"]
    monkeypatch.setenv("LEXORA_API_KEY", "sk-lx-not-a-key")
    async with AsyncClient.from_env() as aio:
        assert "sk-lx-not-a-key" not in repr(aio.settings)
        for asked in (aio.models(), aio.router.GetPrincipal(GetPrincipalRequest(), timeout=20)):
            with pytest.raises((LexoraError, grpc.RpcError)) as refused:
                await asked
            assert "UNAUTHENTICATED" in repr(refused.value) or getattr(refused.value, "reason", "") == "UNAUTHENTICATED"


def test_a_facade_of_its_own_over_mutual_tls(rig: Rig) -> None:
    reach = rig.reach(rig.issue("facade.internal"))
    options = ["--router", reach["LEXORA_TARGET"], "--ca", reach["LEXORA_CA"]]
    shown = ["--cert", reach["LEXORA_CERT"], "--key", reach["LEXORA_KEY"]]
    with Process([*LEXORA, "gateway", *options, *shown, "--config", str(rig.gateway.config_file)]) as facade:
        http = facade.wait_ready(r"http=(https://\S+)").group(1)
        trusted = ssl.create_default_context(cafile=str(rig.authority.ca))
        with httpx.Client(base_url=http, verify=trusted, timeout=20) as client:
            assert client.get("/health").json()["backends"] == {"main": "healthy"}
            # Its own certificate has no rule: it does not speak for those that it serves.
            assert client.get("/v1/models").status_code == 401
        # What a client shows the facade is no credential at the router behind it.
        trusted.load_cert_chain(*rig.issue("web.internal").paths())
        with httpx.Client(base_url=http, verify=trusted, timeout=20) as client:
            assert client.get("/v1/models").status_code == 401
        count = len(facade.lines)
        rig.authority.issue("server")
        facade.wait_for("tls_files_loaded")
        assert "Traceback" not in "".join(facade.lines[count:])


def test_a_facade_shows_its_router_a_renewed_certificate_and_ends_no_call_for_it(rig: Rig, tmp_path: Path) -> None:
    shown = rig.authority.issue("renewed", "facade.internal")
    options = ["--router", rig.gateway.grpc, "--ca", str(rig.authority.ca), "--cert", str(shown.cert), "--key", str(shown.key)]
    begun, go_on = threading.Event(), threading.Event()

    def held(connection: socket.socket, request: RawRequest) -> None:
        begun.set()
        assert go_on.wait(20)
        connection.sendall(ANSWER)

    key = {"x-api-key": add_key(rig.folder / "keys.jsonl", tenant="by-key").text}
    trusted = ssl.create_default_context(cafile=str(rig.authority.ca))
    with (
        Process([*LEXORA, "gateway", *options, "--config", str(rig.gateway.config_file)]) as facade,
        ThreadPoolExecutor(1) as threads,
    ):
        http = facade.wait_ready(r"http=(https://\S+)").group(1)

        def models() -> int:
            return httpx.get(f"{http}/v1/models", verify=trusted, timeout=20).status_code

        def chat() -> int:
            return httpx.post(f"{http}/v1/chat/completions", json=CHAT, headers=key, verify=trusted, timeout=30).status_code

        wait_until(lambda: chat() == 200, "the key is known")
        assert models() == 401  # its certificate has no rule
        rig.engine.answer = held
        try:
            under_way = threads.submit(chat)
            assert begun.wait(20)
            write(shown.key, Authority(tmp_path).issue("other").key.read_bytes())
            facade.wait_for("router_tls_refused")
            assert models() == 401
            rig.authority.issue("renewed", "web.internal")
            facade.wait_for("router_tls_loaded")
            wait_until(lambda: models() == 200, "the new certificate is that of a caller")
        finally:
            go_on.set()
            rig.engine.answer = ANSWER
        assert under_way.result(30) == 200
