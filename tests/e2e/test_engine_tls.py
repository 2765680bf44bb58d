"""TLS to engines: who is trusted, what is shown, certificates that change; and keys that go to their own engine only."""

import json
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from cryptography import x509

from tests.support.engine import ScriptedEngine
from tests.support.raw_server import reply
from tests.support.servers import Gateway, calm_config
from tests.support.tls import Authority, Issued
from tests.support.wire import wait_until

NAME = "engine.internal"
ANSWER = reply(b'{"id":"1","object":"chat.completion","choices":[]}')
KEYS = {"first": "sk-first-0123456789", "second": "sk-second-9876543210"}


@dataclass
class Rig:
    gateway: Gateway
    engines: dict[str, ScriptedEngine]
    shown: Issued
    authority: Authority

    def ask(self, model: str, **headers: str) -> httpx.Response:
        body = {"model": model, "messages": [{"role": "user", "content": "hi"}]}
        return httpx.post(f"{self.gateway.http}/v1/chat/completions", json=body, timeout=20, headers=headers, verify=False)


def server_side(pair: Issued, authority: Authority | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*pair.paths())
    if authority is not None:
        context.load_verify_locations(authority.ca)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    folder = tmp_path_factory.mktemp("tls")
    authority = Authority(folder)
    pair, shown = authority.issue("engine", NAME), authority.issue("gateway", "gateway.internal")
    mutual = ScriptedEngine("m", security=server_side(pair, authority))
    plain = {name: ScriptedEngine("m") for name in ("first", "second", "elsewhere")}
    engines = {"mutual": mutual, **plain}
    trusted = {"url": mutual.url, "ca_file": str(authority.ca), "server_name": NAME}
    shows = {"client_cert": str(shown.cert), "client_key": str(shown.key)}
    backends: dict[str, dict[str, Any]] = {
        "good": trusted | shows,
        "shows_nothing": trusted,
        "other_name": shows | {"url": mutual.url, "ca_file": str(authority.ca)},
        "trusts_system": shows | {"url": mutual.url, "server_name": NAME},
        "unverified": shows | {"url": mutual.url, "verify": False},
        "first": {"url": plain["first"].url, "api_key": KEYS["first"], "fallback_backends": ["second"]},
        "second": {"url": plain["second"].url, "api_key_env": "SECOND_KEY", "fallback_models": {"of-first": "of-second"}},
    }
    for name, backend in backends.items():
        backend |= {"models": [f"of-{name}"], "type": "openai_compatible"}
    config = calm_config(**backends)
    config["reload"] = {"interval": 0.1}
    try:
        for engine in engines.values():
            engine.__enter__()
            engine.answer = ANSWER
        with Gateway(config, folder, env={"SECOND_KEY": KEYS["second"]}) as gateway:
            yield Rig(gateway, engines, shown, authority)
    finally:
        for engine in engines.values():
            engine.__exit__(None, None, None)


def test_who_is_trusted_and_what_is_shown(rig: Rig) -> None:
    found = {name: rig.ask(f"of-{name}") for name in ("good", "unverified", "other_name", "trusts_system", "shows_nothing")}
    assert {name: answer.status_code for name, answer in found.items()} == {
        "good": 200,
        "unverified": 200,
        "other_name": 502,
        "trusts_system": 502,
        "shows_nothing": 502,
    }
    for name in ("other_name", "trusts_system"):
        assert "the TLS handshake failed (CERTIFICATE_VERIFY_FAILED)" in found[name].json()["error"]["message"]
    rig.gateway.wait_for("routing.backends.unverified.verify: the certificate is not checked")


def test_probes_speak_tls_as_calls_do(rig: Rig) -> None:
    healthy = wait_until(
        lambda: (
            {
                name: rig.gateway.metric("lexora_backend_health", backend=name)
                for name in ("good", "unverified", "trusts_system")
            }
            == {"good": 1.0, "unverified": 1.0, "trusts_system": 0.0}
        ),
        "the health of each",
    )
    assert healthy


def test_a_certificate_that_is_replaced_is_shown_from_then_on(rig: Rig) -> None:
    count = len(rig.gateway.lines)
    rig.authority.issue("gateway", "gateway.internal")
    serial = x509.load_pem_x509_certificate(rig.shown.cert.read_bytes()).serial_number
    wait_until(lambda: any("engine_tls_loaded" in line for line in rig.gateway.lines[count:]), "loaded")
    rig.engines["mutual"].certificates.clear()
    wait_until(
        lambda: (
            rig.ask("of-good").status_code == 200
            and int(serial) in {int(found, 16) for found in rig.engines["mutual"].certificates if found}
        ),
        "a connection with it",
    )
    # One that cannot be used: one line, and the last good one stays.
    rig.shown.key.write_bytes(rig.authority.issue("other").key.read_bytes())
    wait_until(lambda: any("engine_tls_refused" in line for line in rig.gateway.lines[count:]), "refused")
    assert rig.ask("of-good").status_code == 200
    refused = [line for line in rig.gateway.lines[count:] if "engine_tls_refused" in line]
    assert len(refused) == 1
    assert "client_key" in refused[0]


def test_a_key_goes_to_its_own_engine_only(rig: Rig) -> None:
    first, second = rig.engines["first"], rig.engines["second"]
    first.answer = reply(b'{"error":{"message":"full"}}', status="503 Service Unavailable")
    try:
        own = {"authorization": "Bearer sk-client-secret", "x-api-key": "sk-client-secret", "api-key": "sk-client-secret"}
        assert rig.ask("of-first", **own).headers["x-lexora-backend"] == "second"
    finally:
        first.answer = ANSWER
    for engine, name in ((first, "first"), (second, "second")):
        sent = json.dumps([engine.last.headers, engine.last.body.decode()])
        assert engine.last.header("authorization") == f"Bearer {KEYS[name]}"
        assert "sk-client-secret" not in sent
        assert all(key not in sent for other, key in KEYS.items() if other != name)


@pytest.mark.parametrize("status", ["301 Moved Permanently", "302 Found", "307 Temporary Redirect", "308 Permanent Redirect"])
def test_redirects_are_not_followed(rig: Rig, status: str) -> None:
    elsewhere, second = rig.engines["elsewhere"], rig.engines["second"]
    second.answer = reply(b"{}", status=status, headers=f"location: {elsewhere.url}/v1/chat/completions\r\n")
    try:
        answer = rig.ask("of-second")
    finally:
        second.answer = ANSWER
    assert (elsewhere.requests, elsewhere.gets) == ([], [])
    assert "location" not in answer.headers
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "upstream_invalid")
