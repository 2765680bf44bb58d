"""Each HTTP route and each rpc with each credential: exact status and error. A new one fails here until it has a row."""

import json
import socket
import ssl
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, cast

import grpc
import httpx
import pytest
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status

from lexora.v1 import (
    call_pb2,
    classify_pb2,
    completion_pb2,
    embed_pb2,
    explain_pb2,
    keys_pb2,
    models_pb2,
    router_pb2,
)
from lexora_contract.access import Scope
from lexora_contract.operations import (
    CHAT,
    CLASSIFY_TASK,
    COMPLETIONS,
    EMBEDDINGS,
    OPERATIONS,
    RESPONSES,
    STORED,
    Dialect,
    dialect_of,
)
from lexora_contract.reasons import REASONS
from lexora_contract.rpcs import RPCS, STREAM, Rpc
from lexora_gateway.app import create_app
from lexora_router.access.key_format import new_key
from tests.support.engine import ScriptedEngine
from tests.support.issuer import Issuer, SigningKey
from tests.support.keys import PAST, add_key, mistyped
from tests.support.raw_server import RawRequest, reply
from tests.support.servers import Facade, Gateway, calm_config
from tests.support.tls import Authority, Issued
from tests.support.wire import wait_until

MODEL = "m"
NUMBERS = count()
# An answer that is one of every operation.
ANSWER = (
    b'{"id":"resp_1","object":"any","created":1,"model":"m","choices":[{"index":0,"text":"x","finish_reason":"stop",'
    b'"message":{"role":"assistant","content":"x"}}],"data":[{"index":0,"object":"embedding","embedding":[0.5]}],'
    b'"usage":{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2}}'
)
# A body that is one of every operation.
BODY = {
    "model": MODEL,
    "messages": [{"role": "user", "content": "x"}],
    "input": "x",
    "prompt": "x",
    "query": "x",
    "max_tokens": 2,
}
FORM = {"data": {"model": MODEL}, "files": {"file": ("a.wav", b"RIFF", "audio/wav")}}

Shown = Callable[[str], str]


@dataclass(frozen=True)
class Row:
    """What a route or an rpc needs: `scope` of its caller; `model`: it asks one; `path`: the operation that it is.

    `right`: HTTP status, or the reason of an rpc that fails, for a caller that may. `own`: it is about what one tenant has.
    `in_body`: the credential is in the body.
    """

    scope: Scope
    model: bool = False
    path: str = ""
    right: int | str = 200
    own: bool = False
    in_body: bool = False
    headers: dict[str, str] = field(default_factory=dict)
    sent: dict[str, Any] = field(default_factory=dict)


def call(path: str, **fields: Any) -> Row:
    return Row(**({"scope": Scope.CALL, "model": True, "path": path} | fields))


PAGE = {"x-lexora-ui": "1"}
ROUTES: dict[tuple[str, str], Row] = {
    **{("POST", path): call(path, sent=FORM if row.form else {"json": BODY}) for path, row in OPERATIONS.items()},
    ("POST", CLASSIFY_TASK): Row(Scope.CALL, path=CLASSIFY_TASK, right=503, sent={"json": {"task_description": "x"}}),
    ("POST", "/generate"): call(COMPLETIONS, sent={"json": {"prompt": "x", "model": MODEL}}),
    ("POST", "/chat"): call(CHAT, sent={"json": {"messages": BODY["messages"], "model": MODEL}}),
    **{(method, path): Row(Scope.CALL, path=path, own=True) for path, row in STORED.items() for method in row.methods},
    ("GET", "/v1/models"): Row(Scope.CALL),
    ("GET", "/v1/models/capabilities"): Row(Scope.CALL),
    ("GET", "/v1/models/{model_id:path}"): Row(Scope.CALL, model=True),
    **{("GET", path): Row(Scope.OPEN) for path in ("/", "/health", "/health/live", "/health/ready", "/openapi.json")},
    **{("GET", path): Row(Scope.OBSERVE) for path in ("/stats", "/stats/recent", "/metrics", "/ui/state")},
    **{("GET", path): Row(Scope.OPEN) for path in ("/docs", "/docs/", "/ui")},
    **{("MOUNT", path): Row(Scope.OPEN) for path in ("/docs", "/ui")},
    ("POST", "/ui/sign-in"): Row(Scope.OBSERVE, right=204, in_body=True, headers=PAGE),
    ("POST", "/ui/sign-out"): Row(Scope.OPEN, right=204, headers=PAGE),
    ("POST", "/ui/chat"): call(CHAT, headers=PAGE, sent={"json": BODY}),
}

TYPED = call_pb2.Call(completion=completion_pb2.CompletionRequest(model=MODEL, text="x"))
CHOICE = Row(Scope.CALL, path=CLASSIFY_TASK, right="CLASSIFIER_DISABLED")
RAW = call_pb2.Call(raw={"path": CHAT, "body": b'{"model":"m","messages":[{"role":"user","content":"x"}]}'})
QUESTIONS: dict[str, tuple[Row, Message | None]] = {
    "Generate": (call(COMPLETIONS), router_pb2.GenerateRequest(call=TYPED)),
    "Stream": (call(CHAT), router_pb2.StreamRequest(call=RAW)),
    "Embed": (call(EMBEDDINGS), embed_pb2.EmbedRequest(model=MODEL, texts={"values": ["x"]})),
    "Classify": (CHOICE, classify_pb2.ClassifyRequest(task_description="x")),
    "ListModels": (Row(Scope.CALL), None),
    "GetModel": (Row(Scope.CALL, model=True), models_pb2.GetModelRequest(id=MODEL)),
    "GetPrincipal": (Row(Scope.KNOWN), None),
    "Health": (Row(Scope.OPEN), None),
    "ReportRefusal": (Row(Scope.CALL), router_pb2.ReportRefusalRequest(http_status=415, message="x")),
    "Explain": (Row(Scope.OBSERVE), explain_pb2.ExplainRequest(call=TYPED)),
    "ListRecentCalls": (Row(Scope.OBSERVE), None),
    "GetStats": (Row(Scope.OBSERVE), None),
    "Reload": (Row(Scope.ADMIN), None),
    "CreateKey": (Row(Scope.ADMIN), keys_pb2.CreateKeyRequest(key={"name": "made"})),
    "GetKey": (Row(Scope.ADMIN, right="NOT_FOUND"), keys_pb2.GetKeyRequest(id="absent")),
    "ListKeys": (Row(Scope.ADMIN), None),
    "RevokeKey": (Row(Scope.ADMIN, right="NOT_FOUND"), keys_pb2.RevokeKeyRequest(id="absent")),
    "RotateKey": (Row(Scope.ADMIN, right="NOT_FOUND"), keys_pb2.RotateKeyRequest(id="absent")),
    "ImportKeys": (Row(Scope.ADMIN), None),
    "ListAuditEvents": (Row(Scope.ADMIN), None),
}

REFUSED = ("none", "malformed", "unknown", "expired", "revoked")
GOOD = ("wrong model", "wrong operation", "other scope", "other tenant", "right", "admin")
ALONE = {Scope.CALL: (Scope.CALL,), Scope.OBSERVE: (Scope.OBSERVE,), Scope.ADMIN: (Scope.ADMIN,), Scope.KNOWN: (Scope.CALL,)}
EVERY = (Scope.CALL, Scope.OBSERVE, Scope.ADMIN)


def outcome(row: Row, credential: str) -> int | str:
    """What the row answers to a credential: what it gives one that may, or the reason of the refusal."""
    if row.scope is Scope.OPEN:
        return row.right
    if credential in REFUSED:
        return "UNAUTHENTICATED"
    if (credential == "other scope" and row.scope is not Scope.KNOWN) or (credential == "wrong operation" and row.path):
        return "PERMISSION_DENIED"
    if credential == "wrong model" and row.model:
        return "MODEL_NOT_FOUND"
    if credential in ("wrong model", "other tenant") and row.own:
        return "NOT_FOUND"
    return row.right


def granted(scope: Scope, credential: str) -> dict[str, Any]:
    """The terms of a key, or a token, of this kind for a row of this scope."""
    scopes = EVERY if credential == "admin" else ALONE.get(scope, (Scope.CALL,))
    if credential == "other scope":
        scopes = (Scope.OBSERVE,) if scope in (Scope.CALL, Scope.ADMIN) else (Scope.CALL,)
    return {
        "scopes": scopes,
        "models": ("other-*",) if credential == "wrong model" else (),
        "operations": ("/v1/other",) if credential == "wrong operation" else (),
        "tenant": "others" if credential == "other tenant" else "team",
    }


def keys_of(file: Path) -> dict[tuple[Scope, str], str]:
    """A key of every kind, for rows of every scope."""
    made: dict[tuple[Scope, str], str] = {}
    for scope in Scope:
        for credential in GOOD:
            made[scope, credential] = add_key(file, name=credential, **granted(scope, credential)).text
    dead = {"expires": PAST}, {"revoked": PAST}
    expired, revoked = (add_key(file, scopes=EVERY, **fields).text for fields in dead)
    shown = {
        "none": "",
        "malformed": mistyped(new_key()).text,
        "unknown": new_key().text,
        "expired": expired,
        "revoked": revoked,
    }
    return made | {(scope, credential): text for scope in Scope for credential, text in shown.items()}


def tokens_of(issuer: Issuer, stranger: Issuer) -> dict[tuple[Scope, str], str]:
    """The same with tokens, of which none can be revoked."""
    made: dict[tuple[Scope, str], str] = {}
    for scope in Scope:
        for credential in GOOD:
            terms = granted(scope, credential)
            claims = {
                "org": terms["tenant"],
                "scope": " ".join(f"lexora:{each}" for each in terms["scopes"]),
                "models": list(terms["models"]) or ["*"],
                "operations": list(terms["operations"]) or ["*"],
            }
            made[scope, credential] = issuer.token(**claims)
    usual = {"scope": "lexora:call lexora:observe lexora:admin", "models": ["*"], "operations": ["*"]}
    good = issuer.token(**usual)
    shown = {
        "none": "",
        "malformed": good[:-8] + "AAAAAAAA",
        "unknown": issuer.token(SigningKey("ES256", "first"), **usual),
        "expired": issuer.token(exp=1, **usual),
        "revoked": stranger.token(**usual),  # an issuer that is trusted no more
    }
    return made | {(scope, credential): text for scope in Scope for credential, text in shown.items()}


class Pages(dict[str, Any]):
    """What the engine has by GET: every stored response."""

    def get(self, target: str, default: Any = None) -> Any:
        return _answer if target.startswith(f"{RESPONSES}/") else super().get(target, default)


def _answer(connection: socket.socket, request: RawRequest) -> None:
    """Each answer has an id of its own, as no two tenants have a response in common."""
    connection.sendall(reply(ANSWER.replace(b"resp_1", b"resp_%d" % next(NUMBERS)), headers="connection: close\r\n"))


@pytest.fixture(scope="module")
def engine() -> Iterator[ScriptedEngine]:
    with ScriptedEngine(MODEL) as started:
        started.answer = _answer
        started.pages = Pages(started.pages)
        yield started


@pytest.fixture(scope="module")
def issuers() -> Iterator[tuple[Issuer, Issuer]]:
    with Issuer() as issuer, Issuer() as stranger:
        yield issuer, stranger


@pytest.fixture(scope="module")
def credentials(folder: Path, issuers: tuple[Issuer, Issuer]) -> dict[str, dict[tuple[Scope, str], str]]:
    return {"keys": keys_of(folder / "keys.jsonl"), "jwt": tokens_of(*issuers)}


@pytest.fixture(scope="module")
def closed(
    engine: ScriptedEngine, folder: Path, issuers: tuple[Issuer, Issuer], credentials: dict[str, dict[tuple[Scope, str], str]]
) -> Iterator[Gateway]:
    config = calm_config(main={"url": engine.url, "models": [MODEL]})
    claims = {"tenant": "org", "models": "models", "operations": "operations", "scopes": "scope"}
    config["auth"] = {
        "mode": "keys+jwt",
        "keys_file": str(folder / "keys.jsonl"),
        "jwt": [issuers[0].provider(claims=claims)],
    }
    with Gateway(config, folder) as process:
        yield process


@pytest.fixture(scope="module")
def facade(closed: Gateway) -> Iterator[Facade]:
    with Facade(closed) as process:
        yield process


def served() -> set[tuple[str, str]]:
    app = create_app(cast("Any", None), version="1", max_body_bytes=1, metrics=lambda _: (b"", "text/plain"))
    found = set()
    for route in app.routes:
        methods = getattr(route, "methods", None) or {"MOUNT"}
        found |= {(method, cast("Any", route).path) for method in methods - {"HEAD"}}
    return found


def test_every_route_and_every_rpc_has_a_row() -> None:
    assert set(ROUTES) == served()
    assert set(QUESTIONS) == {rpc.name for rpc in RPCS.values()}
    assert {rpc.name: rpc.scope for rpc in RPCS.values()} == {name: row.scope for name, (row, _) in QUESTIONS.items()}


def ask(client: httpx.Client, method: str, path: str, row: Row, credential: str) -> httpx.Response:
    target = path.replace("{model_id:path}", MODEL)
    headers, sent = dict(row.headers), dict(row.sent)
    if row.in_body:
        sent["json"] = {"key": credential}
    elif credential:
        headers["authorization"] = f"Bearer {credential}"
    if method == "MOUNT":
        method, target = "GET", f"{path}/"
    return client.request(method, target, headers=headers, **sent)


def wrong_over_http(callers: Callable[[Row, str], tuple[httpx.Client, str]], credentials: Sequence[str]) -> list[str]:
    """What each route answers otherwise than it must. `callers` gives a client, and what it shows in a header."""
    wrong: list[str] = []
    said: dict[str, set[str]] = {}
    for (method, path), row in ROUTES.items():
        for credential in credentials:
            client, shown = callers(row, credential)
            if row.in_body and not shown and credential != "none":
                continue  # a certificate is in no body
            target = path
            if row.own:  # what is asked for has to be there, and this tenant's
                owner, key = callers(ROUTES["POST", CHAT], "right")
                made = owner.post(RESPONSES, json=BODY, headers={"authorization": f"Bearer {key}"} if key else {})
                target = path.replace("{response_id}", made.json()["id"])
            answer = ask(client, method, target, row, shown)
            wanted = 400 if row.in_body and not shown else outcome(row, credential)
            if wanted == "UNAUTHENTICATED":
                said.setdefault(credential, set()).add(answer.json()["error"]["message"])
            if not _is(answer, wanted, path) or (shown and shown in answer.text):
                wrong.append(
                    f"{method} {path} with {credential}: wanted {wanted}, found {answer.status_code} {answer.text[:200]}"
                )
    return wrong + [f"{credential}: {messages}" for credential, messages in said.items() if len(messages) > 1]


@pytest.mark.parametrize("kind", ["keys", "jwt"])
@pytest.mark.parametrize("way", ["one process", "two processes"])
def test_http(
    closed: Gateway, facade: Facade, credentials: dict[str, dict[tuple[Scope, str], str]], kind: str, way: str
) -> None:
    base = closed.http if way == "one process" else facade.http
    with httpx.Client(base_url=base, timeout=10, verify=False) as client:
        wrong = wrong_over_http(lambda row, name: (client, credentials[kind][row.scope, name]), (*REFUSED, *GOOD))
    assert not wrong, "\n".join(wrong)


def _is(answer: httpx.Response, wanted: int | str, path: str) -> bool:
    if isinstance(wanted, int):
        return answer.status_code in (wanted, 307) if wanted == 200 else answer.status_code == wanted
    reason, error = REASONS[wanted], answer.json().get("error") or {}
    if not error:
        return False
    named = answer.headers.get("www-authenticate") == ("Bearer" if reason.status == 401 else None)
    if dialect_of(path) is Dialect.ANTHROPIC:
        return answer.status_code == reason.status and error["type"] == reason.type and named
    param = "model" if wanted == "MODEL_NOT_FOUND" else None
    exact = (error["type"], error["code"], error["param"]) == (reason.type, reason.openai_code, param)
    return answer.status_code == reason.status and exact and named and bool(error["message"])


def refusal(rpc: Rpc[Any, Any], channel: grpc.Channel, message: Message, credential: str) -> str:
    """The reason for which an rpc fails; empty when it does not."""
    metadata = (("authorization", f"Bearer {credential}"),) if credential else ()
    make = channel.unary_stream if rpc is STREAM else channel.unary_unary
    asked: Any = make(rpc.path, rpc.request.SerializeToString, rpc.response.FromString)  # type: ignore[operator]
    try:
        answer = asked(message, metadata=metadata, timeout=10)
        if rpc is STREAM:
            list(answer)
    except grpc.RpcError as error:
        for name, value in cast("grpc.Call", error).trailing_metadata() or ():
            if name == "grpc-status-details-bin":
                info = ErrorInfo()
                found = next(detail for detail in Status.FromString(cast("bytes", value)).details if detail.Unpack(info))
                assert found is not None
                code = cast("grpc.Call", error).code().value[0]
                assert code == REASONS[info.reason].code
                return info.reason
        return f"no reason: {error}"
    return ""


def wrong_over_grpc(callers: Callable[[Row, str], tuple[grpc.Channel, str]], credentials: Sequence[str]) -> list[str]:
    """The same of each rpc."""
    wrong: list[str] = []
    for rpc in RPCS.values():
        row, message = QUESTIONS[rpc.name]
        for credential in credentials:
            channel, shown = callers(row, credential)
            wanted = outcome(row, credential)
            found = refusal(rpc, channel, message if message is not None else rpc.request(), shown)
            if found != ("" if wanted == 200 else wanted):
                wrong.append(f"{rpc.name} with {credential}: wanted {wanted}, found {found or 'an answer'}")
    return wrong


@pytest.mark.parametrize("kind", ["keys", "jwt"])
def test_grpc(closed: Gateway, credentials: dict[str, dict[tuple[Scope, str], str]], kind: str) -> None:
    with grpc.insecure_channel(closed.grpc) as channel:
        wrong = wrong_over_grpc(lambda row, name: (channel, credentials[kind][row.scope, name]), (*REFUSED, *GOOD))
    assert not wrong, "\n".join(wrong)


@dataclass
class Certified:
    """A gateway with TLS whose callers are known by their certificates, and a certificate of every kind."""

    gateway: Gateway
    authority: Authority
    issued: dict[str, Issued]

    def https(self, row: Row, credential: str) -> tuple[httpx.Client, str]:
        trusted = ssl.create_default_context(cafile=str(self.authority.ca))
        if credential != "none":
            trusted.load_cert_chain(*self.issued[name_of(row.scope, credential)].paths())
        return httpx.Client(base_url=self.gateway.http, verify=trusted, timeout=10), ""

    def channel(self, row: Row, credential: str) -> tuple[grpc.Channel, str]:
        pair = self.issued[name_of(row.scope, credential)]
        ca, key, chain = (path.read_bytes() for path in (self.authority.ca, pair.key, pair.cert))
        return grpc.secure_channel(self.gateway.grpc, grpc.ssl_channel_credentials(ca, key, chain)), ""


def name_of(scope: Scope, credential: str) -> str:
    return f"{credential.replace(' ', '-')}.{scope}.example" if credential in GOOD else f"{credential}.example"


@pytest.fixture(scope="module")
def certified(engine: ScriptedEngine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Certified]:
    folder = tmp_path_factory.mktemp("certified")
    authority, strangers = Authority(folder), Authority(folder, "strangers")
    server = authority.issue("server")
    kinds = [(scope, credential) for scope in Scope for credential in GOOD]
    issued = {name: authority.issue(name, name) for name in (name_of(*kind) for kind in kinds)}
    issued |= {"unknown.example": authority.issue("unknown", "unknown.example")}
    issued |= {"malformed.example": strangers.issue("malformed", name_of(Scope.CALL, "right"))}
    issued |= {"expired.example": authority.issue("expired", name_of(Scope.CALL, "right"), days=-1)}
    config = calm_config(main={"url": engine.url, "models": [MODEL]})
    tls = {"cert": str(server.cert), "key": str(server.key), "client_ca": str(authority.ca), "client_auth": "optional"}
    config["server"]["tls"] = tls | {"grpc_client_auth": "required"}
    keys = folder / "keys.jsonl"
    add_key(keys)
    rules = {name_of(*kind): json.loads(json.dumps(granted(*kind))) for kind in kinds}
    config["auth"] = {"mode": "keys", "keys_file": str(keys), "certificates": rules}
    with Gateway(config, folder) as gateway:
        yield Certified(gateway, authority, issued)


def test_certificates(certified: Certified) -> None:
    clients: dict[str, httpx.Client] = {}
    channels: dict[str, grpc.Channel] = {}

    def client(row: Row, credential: str) -> tuple[httpx.Client, str]:
        name = name_of(row.scope, credential)
        clients[name] = clients.get(name) or certified.https(row, credential)[0]
        return clients[name], ""

    def channel(row: Row, credential: str) -> tuple[grpc.Channel, str]:
        name = name_of(row.scope, credential)
        channels[name] = channels.get(name) or certified.channel(row, credential)[0]
        return channels[name], ""

    try:
        wrong = wrong_over_http(client, ("none", "unknown", *GOOD))
        wrong += wrong_over_grpc(channel, ("unknown", *GOOD))
    finally:
        for each in (*clients.values(), *channels.values()):
            each.close()
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("credential", ["malformed", "expired"])
def test_a_certificate_that_does_not_hold_ends_the_handshake(certified: Certified, credential: str) -> None:
    """Whatever the route: nothing is asked over a connection that is not made."""
    row = ROUTES["GET", "/health"]
    client, _ = certified.https(row, credential)
    with client, pytest.raises(httpx.TransportError):
        client.get("/health")
    channel, _ = certified.channel(row, credential)
    with channel:
        assert (
            refusal(RPCS["/lexora.v1.RouterService/Health"], channel, RPCS["/lexora.v1.RouterService/Health"].request(), "")
            != ""
        )


def test_no_credential_is_in_the_log(closed: Gateway, credentials: dict[str, dict[tuple[Scope, str], str]]) -> None:
    wait_until(lambda: "request_id" in closed.output, "a line")
    for made in credentials.values():
        for text in made.values():
            assert not text or text not in closed.output
