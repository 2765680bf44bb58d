"""Secrets are planted in every input; no output has one: answers, log at DEBUG, metrics, statistics, traces, checks, dumps."""

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest

from lexora.v1.call_pb2 import Call
from lexora.v1.chat_pb2 import ROLE_USER, ChatMessage, ChatRequest
from lexora.v1.explain_pb2 import ExplainRequest
from lexora.v1.models_pb2 import ListModelsRequest
from lexora.v1.options_pb2 import CallOptions
from lexora.v1.router_pb2 import GenerateRequest
from tests.support.engine import ScriptedEngine
from tests.support.issuer import Issuer, SigningKey
from tests.support.keys import ALL, PAST, add_key
from tests.support.otlp import Receiver
from tests.support.queueing import Stub
from tests.support.raw_server import closed_port, reply
from tests.support.servers import LEXORA, Gateway, base_config
from tests.support.wire import wait_until

MODEL = "m"
CHAT = "/v1/chat/completions"
PATHS = (CHAT, "/v1/completions", "/v1/embeddings", "/v1/messages", "/v1/responses", "/v1/classify-task", "/generate", "/chat")
READ = ("/v1/models", "/health", "/metrics", "/stats", "/stats/recent", "/ui/", "/ui/state", "/openapi.json", "/no/such/path")
# What a client shows, or an engine is asked with. All have a word that nothing else has.
WORD = "pLaNtEd"
ENGINE_KEYS = {"main": f"sk-engine-{WORD}-1", "from_env": f"sk-engine-{WORD}-2", "gone": f"sk-engine-{WORD}-3"}
SALT = f"salt-{WORD}-0123456789abcdef"
PROMPT = f"my password is {WORD}"


@dataclass
class Rig:
    gateway: Gateway
    collector: Receiver
    secrets: dict[str, str]
    valid: str
    said: list[tuple[str, str]] = field(default_factory=list)  # (where, what), of all outputs

    def note(self, where: str, text: str | bytes) -> None:
        self.said.append((where, text.decode("latin-1") if isinstance(text, bytes) else text))

    def leaks(self) -> list[tuple[str, str]]:
        """Outputs that have a secret, or a piece of one that is long enough to be of use."""
        pieces = {WORD, *self.secrets.values(), *(secret[-24:] for secret in self.secrets.values())}
        return [(where, piece) for where, text in self.said for piece in pieces if piece in text]


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    folder = tmp_path_factory.mktemp("gateway")
    keys_file = folder / "keys.jsonl"
    valid, expired = add_key(keys_file, name="first", scopes=ALL), add_key(keys_file, name="old", expires=PAST)
    with ScriptedEngine(MODEL) as engine, Receiver() as collector, Issuer() as issuer:
        engine.answer = reply(b'{"id":"1","object":"chat.completion","created":1,"model":"m","choices":[]}')
        backends: dict[str, dict[str, Any]] = {
            "main": {"url": engine.url, "models": [MODEL], "api_key": ENGINE_KEYS["main"]},
            "from_env": {"url": engine.url, "models": ["n"], "api_key_env": "PLANTED_KEY"},
            "gone": {"url": f"http://127.0.0.1:{closed_port()}", "models": ["lost"], "api_key": ENGINE_KEYS["gone"]},
        }
        config = base_config(**backends)
        config["auth"] = {"mode": "keys+jwt", "keys_file": str(keys_file), "cache_salt_secret": SALT}
        config["auth"]["jwt"] = [issuer.provider(name="corp", claims={"tenant": "org_id"})]
        config["telemetry"] = collector.config(metrics_interval=0.3)
        config["logging"] = {"format": "json", "level": "DEBUG"}
        headers_secret = f"collector-{WORD}"
        env = {"PLANTED_KEY": ENGINE_KEYS["from_env"], "OTEL_EXPORTER_OTLP_HEADERS": f"x-api-key={headers_secret}"}
        stranger = SigningKey("ES256", "stranger")
        secrets = {
            "valid key": valid.text,
            "expired key": expired.text,
            "unknown key": f"sk-lx-abcdefghijkl-{WORD}",
            "foreign key": f"sk-proj-{WORD}",
            "token": issuer.token(),
            "foreign token": stranger.sign(issuer.claims()),
            "broken token": f"eyJhbGciOiJSUzI1NiJ9.e30.{WORD}",
            "collector": headers_secret,
            "salt": SALT,
        } | {f"engine {name}": key for name, key in ENGINE_KEYS.items()}
        with Gateway(config, folder, env=env) as gateway:
            gateway.headers = {"authorization": f"Bearer {valid.text}"}
            rig = Rig(gateway, collector, secrets, valid.text)
            misplaced(rig)
            for request in engine.requests:  # what a client's body says is between the two of them; all else is relayed by name
                names = [(name, value) for name, value in request.headers if name != "authorization"]
                rig.note("to the engine", f"{request.target} {names}")
            everything(rig)
            commands(rig, env)
            gateway.signal(signal.SIGHUP)
            gateway.wait_for("configuration_unchanged")
        rig.note("log", gateway.output)
        yield rig


def misplaced(rig: Rig) -> None:
    """A key where a client names something: an id, a user, a model, a label."""
    key, trace = rig.valid, {"traceparent": f"00-{'5' * 32}-{'6' * 16}-01"}
    chat = {"model": MODEL, "messages": []}
    headers = (
        {"x-request-id": key},
        {"x-lexora-user": key},
        {"x-lexora-user": "u" * 200 + key},  # it is cut inside the key
        {"x-lexora-session": key},
        {"x-lexora-labels": f"team={key}"},
        {"idempotency-key": key},
        {"anthropic-beta": key},
        {"x-lexora-priority": key},
        {"content-type": f"text/{key}"},
        {"content-encoding": key},
        trace | {"tracestate": f"of={key}"},
    )
    names = (
        "user",
        "safety_identifier",
        "prompt_cache_key",
        "request_id",
        "previous_response_id",
        "model",
        "stream",
        "cache_salt",
    )
    bodies = [{name: key} for name in names] + [{"metadata": {"user_id": key}}, {key: 1}]
    with httpx.Client(base_url=rig.gateway.http, verify=False, timeout=30, headers={"x-api-key": key}) as http:
        asked = [
            http.post(path, json=chat | {"max_tokens": 1, "input": "x"}, headers=each) for each in headers for path in PATHS
        ]
        asked += [http.post(path, json=chat | {"max_tokens": 1, "input": "x"} | body) for body in bodies for path in PATHS]
        asked += [
            http.request(method, path)
            for path in (
                f"/v1/models/{key}",
                f"/v1/responses/{key}",
                f"/{key}",
                f"/v1/models?{key}",
                f"/stats/recent?user={key}",
            )
            for method in ("GET", "DELETE")
        ]
        assert sum(answer.status_code == 200 for answer in asked) > 20
        asked += [http.get(path) for path in READ]
        for answer in asked:
            # What this key's own gateway says of it is not shown to others; its public id may be.
            rig.note(f"{answer.request.method} with a misplaced key", answer.content + str(dict(answer.headers)).encode())
    message = [ChatMessage(role=ROLE_USER, text="x")]
    with grpc.insecure_channel(rig.gateway.grpc) as channel:
        stub = Stub(channel)
        for options in (
            {"request_id": key},
            {"user": key},
            {"tenant": key},
            {"prompt_cache_key": key},
            {"session_key": key},
            {"idempotency_key": key},
            {"labels": {"team": key}},
        ):
            for model in (MODEL, key):
                call = Call(chat=ChatRequest(model=model, messages=message), options=CallOptions(**options))
                for method, request in ((stub.Generate, GenerateRequest(call=call)), (stub.Explain, ExplainRequest(call=call))):
                    try:
                        rig.note("grpc", str(method(request, metadata=(("x-api-key", key),), timeout=20)))
                    except grpc.RpcError as error:
                        rig.note("grpc", f"{error.details()} {error.trailing_metadata()}")  # type: ignore[attr-defined]


def everything(rig: Rig) -> None:
    """Ask every route and rpc with every credential."""
    bodies: tuple[Any, ...] = (
        {"model": MODEL, "messages": [{"role": "user", "content": PROMPT}], "user": "erin"},
        {"model": "no-such-model", "messages": [{"role": "user", "content": PROMPT}]},
        {"model": "lost", "messages": [{"role": "user", "content": PROMPT}]},
        [PROMPT],
    )
    shown: list[dict[str, str]] = [{}]
    for name, secret in rig.secrets.items():
        if not name.startswith(("engine", "salt", "collector")):
            shown += [{"authorization": f"Bearer {secret}"}, {"x-api-key": secret}, {"api-key": secret}]
    shown.append({"authorization": f"Basic {WORD}"})
    with httpx.Client(base_url=rig.gateway.http, verify=False, timeout=30) as http:
        for headers in shown:
            more = {"cookie": f"session={WORD}", "x-unknown": WORD} | headers
            for path in PATHS:
                for body in bodies if path == CHAT else bodies[:1]:
                    answer = http.post(path, params={"api_key": WORD, "key": rig.valid}, json=body, headers=more)
                    rig.note(f"POST {path}", answer.content + str(dict(answer.headers)).encode())
            explained = http.post(CHAT, json=bodies[0], headers=more | {"x-lexora-explain": "1"})
            rig.note("explain", explained.content)
            for path in READ:
                answer = http.get(path, params={"token": WORD}, headers=more)
                rig.note(f"GET {path}", answer.content + str(dict(answer.headers)).encode())
        broken = http.post(
            CHAT, content=b'{"model": "' + WORD.encode(), headers=shown[1] | {"content-type": "application/json"}
        )
        rig.note("broken body", broken.content)
    with grpc.insecure_channel(rig.gateway.grpc) as channel:
        stub = Stub(channel)
        chat = ChatRequest(model=MODEL, messages=[ChatMessage(role=ROLE_USER, text=PROMPT)])
        for headers in shown:
            for ask in (
                lambda metadata: stub.ListModels(ListModelsRequest(), metadata=metadata, timeout=20),
                lambda metadata: stub.Generate(GenerateRequest(call=Call(chat=chat)), metadata=metadata, timeout=20),
                lambda metadata: stub.Explain(ExplainRequest(call=Call(chat=chat)), metadata=metadata, timeout=20),
            ):
                try:
                    rig.note("grpc", str(ask(tuple(headers.items()))))
                except grpc.RpcError as error:
                    rig.note("grpc", f"{error.details()} {error.trailing_metadata()}")  # type: ignore[attr-defined]
    wait_until(lambda: rig.collector.spans and rig.collector.exports, "traces")
    rig.note("traces", repr(rig.collector.spans) + repr(rig.collector.exports) + repr(rig.collector.resource))


def commands(rig: Rig, env: dict[str, str]) -> None:
    """The commands that print a configuration, keys, or what is wrong with them."""
    folder = Path(rig.gateway.config_file).parent
    whole = {name: value for name, value in os.environ.items() if not name.startswith("LEXORA_")} | env
    bad = folder / "bad.yaml"
    bad.write_text(rig.gateway.config_file.read_text() + f"\nservr: {{port: {WORD}}}\nretry: {{max_retries: {WORD}}}\n")
    router = ["--router", rig.gateway.grpc]
    for arguments, more in (
        (["check", "--all", "--config", str(rig.gateway.config_file)], {}),
        (["check", "--json", "--config", str(rig.gateway.config_file)], {}),
        (["check", "--config", str(bad)], {}),
        (["serve", "--config", str(rig.gateway.config_file)], {"PLANTED_KEY": f"{WORD} \n{WORD}"}),
        (["serve", "--config", str(rig.gateway.config_file)], {"LEXORA_SERVER__PORT": WORD}),
        (["status", *router], {"LEXORA_API_KEY": rig.valid}),
        (["whoami", *router], {"LEXORA_API_KEY": rig.valid}),
        (["explain", "--model", MODEL, *router], {"LEXORA_API_KEY": rig.valid}),
        (["models", *router], {"LEXORA_API_KEY": rig.secrets["unknown key"]}),
        (["models", *router], {"LEXORA_API_KEY": f"{WORD} {WORD}"}),
        (["keys", "list", *router], {"LEXORA_API_KEY": rig.valid}),
    ):
        done = subprocess.run([*LEXORA, *arguments], env=whole | more, capture_output=True, text=True, timeout=60, check=False)
        text = done.stdout + done.stderr
        rig.note(" ".join(arguments[:2]), text)


def test_no_output_has_a_secret(rig: Rig) -> None:
    assert set(rig.leaks()) == set()


def test_something_was_said(rig: Rig) -> None:
    text = "\n".join(text for _, text in rig.said)
    assert json.dumps(MODEL) in text
    assert len(rig.said) > 300
    assert "unauthenticated" in text
    assert "lexora_requests_total" in text
