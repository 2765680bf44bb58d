"""Each HTTP route and each rpc with each credential: exact status and error. A new one fails here until it has a row."""

import socket
from collections.abc import Callable, Iterator
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
from tests.support.servers import Gateway, calm_config
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


@pytest.mark.parametrize("kind", ["keys", "jwt"])
def test_http(closed: Gateway, credentials: dict[str, dict[tuple[Scope, str], str]], kind: str) -> None:
    wrong: list[str] = []
    said: dict[str, set[str]] = {}
    with httpx.Client(base_url=closed.http, timeout=10, verify=False) as client:
        for (method, path), row in ROUTES.items():
            for credential in (*REFUSED, *GOOD):
                shown = credentials[kind][row.scope, credential]
                target = path
                if row.own:  # what is asked for has to be there, and this tenant's
                    own = {"authorization": f"Bearer {credentials[kind][Scope.CALL, 'right']}"}
                    target = path.replace("{response_id}", client.post(RESPONSES, json=BODY, headers=own).json()["id"])
                answer = ask(client, method, target, row, shown)
                wanted = outcome(row, credential)
                if row.in_body and credential == "none":
                    wanted = 400
                if wanted == "UNAUTHENTICATED":
                    said.setdefault(credential, set()).add(answer.json()["error"]["message"])
                found = f"{answer.status_code} {answer.text[:200]}"
                if not _is(answer, wanted, path) or (shown and shown in answer.text):
                    wrong.append(f"{method} {path} with {credential}: wanted {wanted}, found {found}")
    assert not wrong, "\n".join(wrong)
    assert {credential: len(messages) for credential, messages in said.items()} == dict.fromkeys(REFUSED, 1)


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


@pytest.mark.parametrize("kind", ["keys", "jwt"])
def test_grpc(closed: Gateway, credentials: dict[str, dict[tuple[Scope, str], str]], kind: str) -> None:
    wrong: list[str] = []
    with grpc.insecure_channel(closed.grpc) as channel:
        for rpc in RPCS.values():
            row, message = QUESTIONS[rpc.name]
            for credential in (*REFUSED, *GOOD):
                shown = credentials[kind][row.scope, credential]
                wanted = outcome(row, credential)
                found = refusal(rpc, channel, message if message is not None else rpc.request(), shown)
                if found != ("" if wanted == 200 else wanted):
                    wrong.append(f"{rpc.name} with {credential}: wanted {wanted}, found {found or 'an answer'}")
    assert not wrong, "\n".join(wrong)


def test_no_credential_is_in_the_log(closed: Gateway, credentials: dict[str, dict[tuple[Scope, str], str]]) -> None:
    wait_until(lambda: "request_id" in closed.output, "a line")
    for made in credentials.values():
        for text in made.values():
            assert not text or text not in closed.output
