"""HTTPS and gRPC over TLS at the ports themselves: clients of all kinds, certificates that change, handshakes that fail."""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import msgspec
import openai
import pytest
from cryptography import x509

import lexora.client
from lexora.v1.health_pb2 import HealthRequest
from lexora.v1.router_pb2_grpc import RouterServiceStub
from tests.support.engine import ScriptedEngine
from tests.support.process import Process
from tests.support.raw_server import reply
from tests.support.servers import LEXORA, Gateway, base_config, metric, plain, write_config
from tests.support.tls import HOST, Authority, Issued, write
from tests.support.wire import wait_until

MESSAGE = {"role": "assistant", "content": "hi"}
CHOICE = {"index": 0, "finish_reason": "stop", "message": MESSAGE}
ANSWER = json.dumps({"id": "1", "object": "chat.completion", "created": 1, "model": "m", "choices": [CHOICE]}).encode()
BODY = json.dumps({"model": "m", "messages": [{"role": "user", "content": "hi"}]})
CHAT = "/v1/chat/completions"
HANDSHAKE_SECONDS = 4.0  # a JVM that has just started needs one of them on a busy machine


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def shown(authority: Authority) -> Issued:
    """What the ports show."""
    return authority.issue("server")


@pytest.fixture(scope="module")
def engine() -> Iterator[ScriptedEngine]:
    with ScriptedEngine("m") as started:
        started.answer = reply(ANSWER)
        yield started


def tls_config(engine: ScriptedEngine, shown: Issued, **keys: Any) -> dict[str, Any]:
    config = base_config(main={"url": engine.url, "models": ["m"]})
    tls = {"cert": str(shown.cert), "key": str(shown.key), "handshake_timeout": HANDSHAKE_SECONDS}
    config["server"] |= {"host": "127.0.0.1", "tls": tls | keys}
    config["reload"] = {"interval": 0.1}
    return config


@pytest.fixture(scope="module")
def gateway(engine: ScriptedEngine, shown: Issued, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with Gateway(tls_config(engine, shown), tmp_path_factory.mktemp("gateway")) as process:
        yield process


@pytest.fixture
def trusted(authority: Authority) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(authority.ca))


def port_of(gateway: Gateway) -> int:
    return int(gateway.http.rpartition(":")[2])


def channel(gateway: Gateway, authority: Authority, client: Issued | None = None) -> grpc.Channel:
    pair = (None, None) if client is None else (client.key.read_bytes(), client.cert.read_bytes())
    return grpc.secure_channel(gateway.grpc, grpc.ssl_channel_credentials(authority.ca.read_bytes(), *pair))


def serial(address: tuple[str, int], context: ssl.SSLContext) -> str:
    with socket.create_connection(address, 10) as plain, context.wrap_socket(plain, server_hostname=HOST) as secured:
        found = secured.getpeercert()
        assert found is not None
        return str(found["serialNumber"])


# -- clients


def test_curl_is_given_http1_though_it_offers_http2(gateway: Gateway, authority: Authority) -> None:
    url, form = gateway.http + CHAT, "%{http_version} %{http_code} %{ssl_verify_result}"
    command = ["curl", "--http2", "--cacert", str(authority.ca), "-s", "-w", form, "-H", "content-type: application/json"]
    done = subprocess.run([*command, "-d", BODY, url], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout == f"{ANSWER.decode()}1.1 200 0"


def test_the_openai_sdk(gateway: Gateway, trusted: ssl.SSLContext) -> None:
    with (
        httpx.Client(verify=trusted) as http,
        openai.OpenAI(base_url=f"{gateway.http}/v1", api_key="k", http_client=http) as sdk,
    ):
        answer = sdk.chat.completions.create(model="m", messages=[{"role": "user", "content": "hi"}])
    assert answer.choices[0].message.content == "hi"


@pytest.mark.skipif(shutil.which("javac") is None, reason="no JDK")
def test_the_jdk_client(gateway: Gateway, authority: Authority, tmp_path: Path) -> None:
    store, word = tmp_path / "trusted.p12", "changeit"
    imported = ["keytool", "-importcert", "-noprompt", "-file", str(authority.ca), "-keystore", str(store), "-storepass", word]
    subprocess.run(imported, capture_output=True, timeout=60, check=True)
    options = [f"-Djavax.net.ssl.trustStore={store}", f"-Djavax.net.ssl.trustStorePassword={word}"]
    source = Path(__file__).with_name("Client.java")
    command = ["java", "-XX:TieredStopAtLevel=1", *options, str(source), gateway.http + CHAT, BODY]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.splitlines() == [f"200 {ANSWER.decode()}"] * 3, done.stderr


def test_grpc_clients(gateway: Gateway, authority: Authority, tmp_path: Path) -> None:
    with lexora.client.Client(gateway.grpc, credentials=grpc.ssl_channel_credentials(authority.ca.read_bytes())) as client:
        assert [model.id for model in client.models()] == ["m"]
    buf = Path(sys.executable).parent / "buf"
    url = f"https://{gateway.grpc}/lexora.v1.RouterService/Health"
    command = [str(buf), "curl", "--protocol", "grpc", "--cacert", str(authority.ca), "-d", "{}", url]
    env = os.environ | {"BUF_CACHE_DIR": str(tmp_path), "NO_PROXY": "*"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False, env=env, cwd=tmp_path)
    assert json.loads(done.stdout or "{}").get("status"), done.stderr
    with grpc.insecure_channel(gateway.grpc) as clear, pytest.raises(grpc.RpcError):
        RouterServiceStub(clear).Health(HealthRequest(), timeout=5)


def test_old_versions_and_weak_ciphers_are_refused(gateway: Gateway) -> None:
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
    weak = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    weak.check_hostname, weak.verify_mode = False, ssl.CERT_NONE
    weak.maximum_version = ssl.TLSVersion.TLSv1_2
    weak.set_ciphers("AES128-SHA:ECDHE+AES+CBC:@SECLEVEL=0")
    old.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSVersion"):
        old.minimum_version, old.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
    for context in (old, weak):
        with pytest.raises((ssl.SSLError, ConnectionError)):
            serial(("127.0.0.1", port_of(gateway)), context)


# -- what is no handshake


def test_http_in_the_clear_is_told_to_use_https(gateway: Gateway) -> None:
    answer = httpx.get(gateway.http.replace("https:", "http:") + "/health", verify=False)
    assert (answer.status_code, answer.headers["connection"]) == (400, "close")
    assert answer.json()["error"]["message"] == "This port speaks HTTPS: the address must begin with https://."


@pytest.mark.parametrize("sent", [b"\0\1\2\3 garbage", b"\x16\3\1\0\5hello", b"\x16" + bytes(70_000), b"\x16"])
def test_garbage_ends_the_connection(gateway: Gateway, sent: bytes) -> None:
    with socket.create_connection(("127.0.0.1", port_of(gateway)), 10) as connection:
        began = time.monotonic()
        try:
            connection.sendall(sent)
            while connection.recv(65536):
                pass
        except ConnectionError:
            pass
        assert time.monotonic() - began < HANDSHAKE_SECONDS + 5


def test_handshakes_that_are_not_finished_are_cut_off_and_block_no_other(
    gateway: Gateway, trusted: ssl.SSLContext, authority: Authority
) -> None:
    hello = client_hello()
    ports = (port_of(gateway), int(gateway.grpc.rpartition(":")[2]))
    begun = [(port, sent) for port in ports for sent in (b"", hello[:1], hello[:40], hello) for _ in range(25)]
    held = []
    try:
        for port, sent in begun:
            connection = socket.create_connection(("127.0.0.1", port), 10)
            connection.sendall(sent)
            held.append(connection)
        with httpx.Client(base_url=gateway.http, verify=trusted, timeout=10) as client:
            assert client.get("/health/live").status_code == 200
            with channel(gateway, authority) as secured:
                assert RouterServiceStub(secured).Health(HealthRequest(), timeout=10)
            for connection in held:
                with contextlib.suppress(ConnectionError):
                    while connection.recv(65536):
                        pass
            text = client.get("/metrics").text
        assert metric(text, "lexora_tls_handshakes_failed_total", reason="timeout") >= 100
        assert metric(text, "lexora_http_connections") == 1, "the client's own"
    finally:
        for connection in held:
            connection.close()


def client_hello() -> bytes:
    context = ssl.create_default_context()
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        context.wrap_bio(incoming, outgoing, server_hostname=HOST).do_handshake()
    return outgoing.read()


# -- certificates that change


def test_certificates_change_under_load(gateway: Gateway, authority: Authority, trusted: ssl.SSLContext, shown: Issued) -> None:
    stop, failed, done = threading.Event(), [], []

    def calls(one: Callable[[], None]) -> None:
        while not stop.is_set():
            try:
                one()
            except Exception as error:
                failed.append(repr(error))
            done.append(one)

    def fresh() -> None:
        with httpx.Client(base_url=gateway.http, verify=trusted, timeout=20) as client:
            assert client.post(CHAT, content=BODY, headers={"content-type": "application/json"}).status_code == 200

    def over_grpc() -> None:
        with channel(gateway, authority) as secured:
            RouterServiceStub(secured).Health(HealthRequest(), timeout=20)

    kept = httpx.Client(base_url=gateway.http, verify=trusted, timeout=20)
    long = channel(gateway, authority)

    def over_a_kept_connection() -> None:
        assert kept.post(CHAT, content=BODY, headers={"content-type": "application/json"}).status_code == 200
        RouterServiceStub(long).Health(HealthRequest(), timeout=20)

    threads = [threading.Thread(target=calls, args=(one,)) for one in (fresh, over_grpc, over_a_kept_connection)]
    for thread in threads:
        thread.start()
    grpc_port = int(gateway.grpc.rpartition(":")[2])
    seen = set()
    try:
        for _ in range(4):
            count = len(gateway.lines)
            authority.issue("server")
            wait_until(lambda count=count: any("tls_files_loaded" in line for line in gateway.lines[count:]), "loaded")  # type: ignore[misc]
            now = serial(("127.0.0.1", port_of(gateway)), trusted)
            assert now == serial(("127.0.0.1", grpc_port), trusted), "both ports show the same"
            seen.add(now)
        # The key of another certificate: what was loaded before stays, and one line says why.
        good = shown.key.read_bytes()
        count = len(gateway.lines)
        write(shown.key, authority.issue("other").key.read_bytes())
        line = wait_until(lambda: [line for line in gateway.lines[count:] if "tls_files_refused" in line], "refused")[0]
        assert "server.tls.key" in line
        assert "their public keys differ" in line
        wait_until(lambda: metric(kept.get("/metrics").text, "lexora_tls_files_refused") == 1, "the metric")
        enough = len(done) + 50
        wait_until(lambda: len(done) > enough, "calls go on")
        assert serial(("127.0.0.1", port_of(gateway)), trusted) == now
        assert sum("tls_files_refused" in line for line in gateway.lines[count:]) == 1
        write(shown.key, good)
        wait_until(lambda: metric(kept.get("/metrics").text, "lexora_tls_files_refused") == 0, "the metric")
    finally:
        stop.set()
        for thread in threads:
            thread.join(30)
        kept.close()
        long.close()
    assert (failed, len(seen)) == ([], 4)
    assert "Traceback" not in gateway.output
    assert len(done) > 100


# -- certificates of clients


@pytest.fixture(scope="module")
def mutual(engine: ScriptedEngine, authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    config = tls_config(engine, authority.issue("mutual"), client_ca=str(authority.ca), client_auth="required")
    config["reload"] = {"watch": False}
    config["server"] |= {"admin_port": 0, "admin_grpc_port": 0}
    with Gateway(config, tmp_path_factory.mktemp("mutual")) as process:
        yield process


def test_a_client_must_show_a_certificate_that_is_trusted(
    mutual: Gateway, authority: Authority, tmp_path_factory: pytest.TempPathFactory
) -> None:
    client = authority.issue("client", "batch.internal")
    stranger = Authority(tmp_path_factory.mktemp("stranger"), "stranger").issue("client", "batch.internal")
    for pair, served in ((client, True), (stranger, False), (None, False)):
        trusted = ssl.create_default_context(cafile=str(authority.ca))
        if pair is not None:
            trusted.load_cert_chain(*pair.paths())
        with (
            httpx.Client(base_url=mutual.http, verify=trusted, timeout=10) as http,
            channel(mutual, authority, pair) as secured,
        ):
            if served:
                assert http.get("/v1/models").status_code == 200
                assert RouterServiceStub(secured).Health(HealthRequest(), timeout=10)
                continue
            with pytest.raises(httpx.TransportError):
                http.get("/v1/models")
            with pytest.raises(grpc.RpcError):
                RouterServiceStub(secured).Health(HealthRequest(), timeout=10)


def test_sighup_loads_certificates_where_nothing_is_watched(mutual: Gateway, authority: Authority) -> None:
    client = authority.issue("client", "batch.internal")
    trusted = ssl.create_default_context(cafile=str(authority.ca))
    trusted.load_cert_chain(*client.paths())
    operators = re.findall(r"admin(?:_grpc)?=\S*?(\d+) ", plain(mutual.output))
    ports = [port_of(mutual), int(mutual.grpc.rpartition(":")[2]), *map(int, operators)]
    assert len(ports) == 4

    def shown_at_all() -> set[str]:
        return {serial(("127.0.0.1", port), trusted) for port in ports}

    [before] = shown_at_all()
    authority.issue("mutual")
    assert shown_at_all() == {before}
    mutual.signal(signal.SIGHUP)
    mutual.wait_for("tls_files_loaded")
    [after] = shown_at_all()
    assert after != before


def test_a_reload_may_name_other_files(mutual: Gateway, authority: Authority, tmp_path: Path) -> None:
    moved, others = authority.issue("moved"), Authority(tmp_path, "others")
    trusted = ssl.create_default_context(cafile=str(authority.ca))
    trusted.load_cert_chain(*others.issue("client", "batch.internal").paths())
    ports = [port_of(mutual), int(mutual.grpc.rpartition(":")[2])]
    config = msgspec.yaml.decode(mutual.config_file.read_bytes())

    def reload(**files: str) -> None:
        config["server"]["tls"] |= files
        mutual.config_file.write_bytes(msgspec.yaml.encode(config))
        mutual.signal(signal.SIGHUP)

    reload(cert=str(moved.cert), key=str(moved.key), client_ca=str(others.ca))
    line = mutual.wait_for(r".*configuration_applied.*server\.tls\.cert.*").group(0)
    assert "server.tls.client_ca" in line
    [now] = {serial(("127.0.0.1", port), trusted) for port in ports}  # which is for clients of the other authority
    assert int(now, 16) == x509.load_pem_x509_certificates(moved.cert.read_bytes())[0].serial_number
    reload(cert=str(tmp_path / "nowhere.pem"))
    assert "server.tls.cert" in mutual.wait_for(r".*configuration_refused.*").group(0)
    assert {serial(("127.0.0.1", port), trusted) for port in ports} == {now}
    authority.issue("moved")
    reload(cert=str(moved.cert))
    wait_until(lambda: serial(("127.0.0.1", ports[0]), trusted) != now, "the files at the new place are followed")


def test_the_metrics_of_a_router_are_https_with_the_certificate_of_the_moment(
    engine: ScriptedEngine, authority: Authority, trusted: ssl.SSLContext, tmp_path: Path
) -> None:
    first, second = authority.issue("metrics-1"), authority.issue("metrics-2")
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    for source, target in ((first.cert, cert), (first.key, key)):
        shutil.copy(source, target)
    config = tls_config(engine, Issued(cert, key, cert), handshake_timeout=10)
    with Process([*LEXORA, "router", "--config", str(write_config(config, tmp_path))]) as router:
        ready = plain(router.wait_ready(r".*\bserving\b.*").group(0))
        url = ready.partition("metrics=")[2].split()[0]
        port = int(url.partition("127.0.0.1:")[2].partition("/")[0])
        assert url.startswith("https://")
        with httpx.Client(verify=trusted, timeout=10) as client:
            assert "lexora_build_info" in client.get(url).raise_for_status().text
            shown = peer_certificate(port, trusted)
            for source, target in ((second.key, key), (second.cert, cert)):
                write(target, source.read_bytes())
            wait_until(lambda: peer_certificate(port, trusted) != shown, "the renewed certificate")
            assert client.get(url).status_code == 200


def peer_certificate(port: int, trusted: ssl.SSLContext) -> bytes | None:
    with (
        socket.create_connection(("127.0.0.1", port), 10) as connection,
        trusted.wrap_socket(connection, server_hostname=HOST) as secured,
    ):
        return secured.getpeercert(binary_form=True)


def test_the_cookie_of_the_page_is_for_https_only(gateway: Gateway, trusted: ssl.SSLContext) -> None:
    with httpx.Client(base_url=gateway.http, verify=trusted, timeout=10) as client:
        answer = client.post("/ui/sign-in", json={"key": "any-where-none-is-asked-for"}, headers={"x-lexora-ui": "1"})
        assert (answer.status_code, answer.headers["set-cookie"].rpartition("; ")[2]) == (204, "Secure")
