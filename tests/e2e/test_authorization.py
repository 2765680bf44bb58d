"""What a key changes behind the door, with real processes: whose a call is, what it may use, and what its engine gets."""

import json
import random
import socket
import threading
import unicodedata
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest

from lexora.v1 import call_pb2
from lexora.v1.admin_pb2_grpc import AdminServiceStub
from lexora.v1.chat_pb2 import ROLE_USER, ChatMessage, ChatRequest
from lexora.v1.classify_pb2 import ClassifyRequest
from lexora.v1.errors_pb2 import ERROR_REASON_MODEL_NOT_FOUND
from lexora.v1.explain_pb2 import ExplainRequest
from lexora.v1.models_pb2 import GetModelRequest, ListModelsRequest
from lexora.v1.options_pb2 import CallOptions
from lexora.v1.raw_pb2 import RawCall
from lexora.v1.router_pb2 import GenerateRequest
from lexora_router.access.key_format import NewKey
from tests.support import wire
from tests.support.engine import ScriptedEngine
from tests.support.keys import ALL, add_key
from tests.support.queueing import CHAT, Stub
from tests.support.raw_server import reply
from tests.support.servers import Facade, Gateway, base_config, metric
from tests.support.wire import wait_until

ANSWER = {
    "id": "c",
    "object": "chat.completion",
    "model": "allowed",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
}
BURST = 12
FORM = "multipart/form-data; boundary=b"
SPEECH = "/v1/audio/transcriptions"
MESSAGES = [{"role": "user", "content": "Hi"}]


@pytest.fixture(scope="module")
def engine() -> Iterator[ScriptedEngine]:
    with ScriptedEngine("allowed", "forbidden") as scripted:
        scripted.answer = reply(json.dumps(ANSWER).encode())
        yield scripted


@dataclass(frozen=True)
class Keys:
    """`whole` may do all, `some` has a few models; `own` is limited beside its tenant, which `bare` is as well.

    `few` may use few tokens, one call at a time, in a tenant without such limits.
    """

    file: Path
    whole: NewKey
    some: NewKey
    bare: NewKey
    own: NewKey
    few: NewKey


@pytest.fixture(scope="module")
def keys(folder: Path) -> Keys:
    file = folder / "keys.jsonl"
    return Keys(
        file,
        whole=add_key(file, tenant="acme", scopes=ALL),
        some=add_key(file, tenant="acme", scopes=ALL, models=("allow*", "fast")),
        bare=add_key(file, tenant="limited"),
        own=add_key(file, tenant="limited", rate=1e-3, burst=2),
        few=add_key(file, tenant="acme", tokens_per_minute=60, max_concurrent=1),
    )


@pytest.fixture(scope="module")
def some(keys: Keys) -> NewKey:
    return keys.some


@pytest.fixture(scope="module")
def whole(keys: Keys) -> NewKey:
    return keys.whole


@pytest.fixture(scope="module")
def gateway(engine: ScriptedEngine, folder: Path, keys: Keys) -> Iterator[Gateway]:
    main = {"url": engine.url, "type": "openai_compatible", "models": [{"name": "allowed"}, {"name": "forbidden"}]}
    config = base_config(main=main)
    config["auth"] = {"mode": "keys", "keys_file": str(keys.file)}
    config["routing"] |= {
        "aliases": {"fast": "forbidden", "slow": "allowed"},
        "default_model_for_unknown_task": "forbidden",
        "strict_models": True,
        "classifier": {"enabled": True, "type": "rules", "rules": [{"capability": "general", "words": ["hi"]}]},
    }
    slow = {"rate": 1e-3, "burst": 1}
    config["rate_limit"] = {"users": {"limited": {"rate": 1e-3, "burst": BURST}, "acme/slow": slow}}
    config["logging"] = {"format": "json"}
    with Gateway(config, folder) as process:
        yield process


def bearer(key: NewKey) -> dict[str, str]:
    return {"authorization": f"Bearer {key.text}"}


@pytest.fixture
def http(gateway: Gateway) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=gateway.http, timeout=10, verify=False) as client:
        yield client


def chat(model: str | None, **fields: Any) -> dict[str, Any]:
    return ({} if model is None else {"model": model}) | {"messages": MESSAGES} | fields


# -- models


def asked(gateway: Gateway, http: httpx.Client, key: NewKey, model: str) -> dict[str, tuple[Any, ...]]:
    """What each way of asking for a model comes to, with its name taken out."""
    found: dict[str, tuple[Any, ...]] = {}
    headers = bearer(key) | {"x-request-id": "the-same"}

    def took(way: str, answer: httpx.Response) -> None:
        found[way] = (answer.status_code, answer.text.replace(model, "MODEL"), sorted(answer.headers))

    took("chat", http.post(CHAT, json=chat(model), headers=headers))
    took("stream", http.post(CHAT, json=chat(model, stream=True), headers=headers))
    took("messages", http.post("/v1/messages", json=chat(model, max_tokens=1), headers=headers))
    took("short", http.post("/chat", json={"model": model, "prompt": "Hi"}, headers=headers))
    took("get", http.get(f"/v1/models/{model}", headers=headers))
    took("explain", http.post(CHAT, json=chat(model), headers=headers | {"x-lexora-explain": "1"}))
    candidates = {"task_description": "hi", "candidate_models": [model]}
    took("classify", http.post("/v1/classify-task", json=candidates, headers=headers))
    form = f'--b\r\nContent-Disposition: form-data; name="model"\r\n\r\n{model}\r\n--b--\r\n'
    took("form", http.post(SPEECH, content=form, headers=headers | {"content-type": FORM}))
    with grpc.insecure_channel(gateway.grpc) as channel:
        metadata = tuple(bearer(key).items())
        typed = call_pb2.Call(chat=ChatRequest(model=model, messages=[ChatMessage(role=ROLE_USER, text="Hi")]))
        raw = call_pb2.Call(raw=RawCall(path=CHAT, body=json.dumps(chat(model)).encode()))
        for way, ask in {
            "typed": lambda: Stub(channel).Generate(GenerateRequest(call=typed), metadata=metadata),
            "raw": lambda: Stub(channel).Generate(GenerateRequest(call=raw), metadata=metadata),
            "GetModel": lambda: Stub(channel).GetModel(GetModelRequest(id=model), metadata=metadata),
            "Classify": lambda: Stub(channel).Classify(
                ClassifyRequest(task_description="hi", candidate_models=[model]), metadata=metadata
            ),
        }.items():
            try:
                ask()
                found[way] = ("OK",)
            except grpc.RpcError as error:
                found[way] = (error.code(), error.details().replace(model, "MODEL"))  # type: ignore[attr-defined]
    return found


def test_a_model_that_may_not_be_used_is_as_one_that_is_not_there(
    gateway: Gateway, http: httpx.Client, engine: ScriptedEngine, some: NewKey, whole: NewKey
) -> None:
    engine.requests.clear()
    forbidden, missing = (asked(gateway, http, some, model) for model in ("forbidden", "forbidde2"))
    assert forbidden == missing
    assert engine.requests == []
    statuses = {way: answer[0] for way, answer in forbidden.items() if way in ("chat", "stream", "messages", "short", "form")}
    assert set(statuses.values()) == {404}
    assert "MODEL" in forbidden["chat"][1]
    assert asked(gateway, http, whole, "forbidden")["chat"][0] == 200  # it is there


def test_a_key_sees_the_models_that_it_may_use(gateway: Gateway, http: httpx.Client, some: NewKey, whole: NewKey) -> None:
    def seen(key: NewKey) -> dict[str, Any]:
        listed = http.get("/v1/models", headers=bearer(key)).json()
        capable = http.get("/v1/models/capabilities", headers=bearer(key)).json()
        with grpc.insecure_channel(gateway.grpc) as channel:
            by_grpc = Stub(channel).ListModels(ListModelsRequest(), metadata=tuple(bearer(key).items()))
        ids = sorted(model["id"] for model in listed["data"])
        assert sorted(model["id"] for model in capable["models"]) == sorted(model.id for model in by_grpc.models) == ids
        assert capable["default_model_for_unknown_task"] == (by_grpc.default_model_for_unknown_task or None)
        return {"ids": ids, "default": by_grpc.default_model_for_unknown_task, "all": listed, "capable": capable}

    assert seen(whole)["ids"] == ["allowed", "fast", "forbidden", "slow"]
    mine = seen(some)
    assert (mine["ids"], mine["default"]) == (["allowed", "fast"], "")
    assert "forbidden" not in json.dumps(mine)


def test_an_alias_that_is_allowed_leads_where_its_operator_says(
    http: httpx.Client, engine: ScriptedEngine, some: NewKey
) -> None:
    assert http.post(CHAT, json=chat("fast"), headers=bearer(some)).status_code == 200
    assert json.loads(engine.last.body)["model"] == "forbidden"
    assert http.post(CHAT, json=chat("slow"), headers=bearer(some)).status_code == 404


def test_auto_chooses_among_the_models_that_a_key_may_use(
    gateway: Gateway, http: httpx.Client, engine: ScriptedEngine, some: NewKey, whole: NewKey
) -> None:
    for key, expected in ((whole, {"allowed", "forbidden"}), (some, {"allowed"})):
        answer = http.post(CHAT, json=chat("auto"), headers=bearer(key))
        assert answer.status_code == 200, answer.text
        assert json.loads(engine.last.body)["model"] in expected
        task = http.post("/v1/classify-task", json={"task_description": "what?"}, headers=bearer(key))
        assert {task.json()["recommended_model"], *(each["model"] for each in task.json()["alternatives"])} == expected
        if key is some:
            assert "forbidden" not in task.text


def test_a_call_that_names_no_model_gets_the_default_one_where_it_may(
    http: httpx.Client, engine: ScriptedEngine, some: NewKey, whole: NewKey
) -> None:
    form = '--b\r\nContent-Disposition: form-data; name="language"\r\n\r\nen\r\n--b--\r\n'
    ways: list[tuple[str, dict[str, Any]]] = [
        ("/chat", {"json": {"prompt": "Hi"}}),
        ("/tokenize", {"json": {"prompt": "Hi"}}),
        (SPEECH, {"content": form, "headers": {"content-type": FORM}}),
    ]
    for path, given in ways:
        headers = given.pop("headers", {})
        answer = http.post(path, **given, headers=headers | bearer(some))
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, "model"), path
        assert "forbidden" not in answer.text
        assert http.post(path, **given, headers=headers | bearer(whole)).status_code == 200, path


# -- a body that names two


SMUGGLED = [
    '{"model":"forbidden","model":"allowed",%s}',
    '{"model":"allowed",%s,"Model":"forbidden"}',
    '{"MODEL":"forbidden",%s,"model":"allowed"}',
    '{"mod\\u0065l":"forbidden","model":"allowed",%s}',
    '{"model":"allowed",%s,"\\u004d\\u006f\\u0064\\u0065\\u006c":"forbidden"}',
    '{"model":5,"model":"allowed",%s,"mODEL":["forbidden"]}',
]


@pytest.mark.parametrize("body", SMUGGLED)
def test_no_body_smuggles_a_second_model_to_the_engine(
    gateway: Gateway, http: httpx.Client, engine: ScriptedEngine, some: NewKey, body: str
) -> None:
    text = body % f'"messages":{json.dumps(MESSAGES)},"n":9007199254740993'
    for send in ("http", "grpc"):
        engine.requests.clear()
        if send == "http":
            headers = bearer(some) | {"content-type": "application/json"}
            assert http.post(CHAT, content=text, headers=headers).status_code == 200
        else:
            with grpc.insecure_channel(gateway.grpc) as channel:
                raw = call_pb2.Call(raw=RawCall(path=CHAT, body=text.encode()))
                Stub(channel).Generate(GenerateRequest(call=raw), metadata=tuple(bearer(some).items()))
        pairs: list[list[tuple[str, Any]]] = []
        json.loads(engine.last.body, object_pairs_hook=lambda found, pairs=pairs: pairs.append(found))
        named = [pair for pair in pairs[-1] if pair[0].lower() == "model"]
        assert named == [("model", "allowed")]
        assert ("n", 9007199254740993) in pairs[-1]


@pytest.mark.parametrize(
    "body",
    [
        '{"model":"allowed","model":"forbidden",%s}',
        '{"model":"allowed","mod\\u0065l":"forbidden",%s}',
        '{"model":"allowed",%s,"model":"forbidden"}',
    ],
)
def test_the_last_model_counts(http: httpx.Client, some: NewKey, body: str) -> None:
    text = body % f'"messages":{json.dumps(MESSAGES)}'
    for path in (CHAT, "/chat"):
        headers = bearer(some) | {"content-type": "application/json"}
        assert http.post(path, content=text, headers=headers).status_code == 404, path


def test_a_query_names_no_model(http: httpx.Client, engine: ScriptedEngine, some: NewKey) -> None:
    assert http.post(f"{CHAT}?model=forbidden", json=chat("allowed"), headers=bearer(some)).status_code == 200
    assert (engine.last.target, json.loads(engine.last.body)["model"]) == (CHAT, "allowed")
    assert http.post(f"{CHAT}?model=allowed", json=chat("forbidden"), headers=bearer(some)).status_code == 404


def test_a_key_is_no_request_id(http: httpx.Client, engine: ScriptedEngine, some: NewKey) -> None:
    answer = http.post(CHAT, json=chat("allowed"), headers=bearer(some) | {"x-request-id": some.text})
    assert answer.status_code == 200
    assert dict(engine.last.headers)["x-request-id"].startswith(answer.headers["x-request-id"])
    assert "sk-lx-" not in answer.headers["x-request-id"]


def test_one_request_id_of_two_callers_is_two_to_the_engine(
    http: httpx.Client, engine: ScriptedEngine, some: NewKey, whole: NewKey
) -> None:
    def sent(key: NewKey) -> str:
        answer = http.post(CHAT, json=chat("allowed"), headers=bearer(key) | {"x-request-id": "order-7"})
        assert (answer.status_code, answer.headers["x-request-id"]) == (200, "order-7")
        return str(engine.last.header("x-request-id"))

    found = [sent(some), sent(whole), sent(some)]
    assert len(set(found)) == 3
    assert all(len(each) == len("order-7") + 17 and each.startswith("order-7-") for each in found)


def test_a_form_names_one_model(http: httpx.Client, engine: ScriptedEngine, some: NewKey, whole: NewKey) -> None:
    def part(pair: str) -> str:
        name, _, model = pair.partition("=")
        return f'--b\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{model}\r\n'

    def ask(key: NewKey, *models: str) -> int:
        form = "".join(map(part, models)) + "--b--\r\n"
        return http.post(SPEECH, content=form, headers=bearer(key) | {"content-type": FORM}).status_code

    assert ask(some, "model=allowed") == 200
    for twice in (("model=forbidden", "model=allowed"), ("model=allowed", "Model=forbidden")):
        engine.requests.clear()
        assert ask(some, *twice) == 400
        assert engine.requests == []
    assert ask(some, "model=allowed", "model=forbidden") == 404
    assert ask(whole, "model=forbidden", "model=allowed") == 200  # for a key with all models it is the engine's to read


# -- refused early


@pytest.mark.parametrize("framing", ["content-length: 32000000", "transfer-encoding: chunked", "content-length: 100"])
@pytest.mark.parametrize("credential", ["", "authorization: Bearer sk-lx-wrong\r\n"])
@pytest.mark.parametrize("expect", [True, False])
def test_without_credentials_a_body_is_refused_before_it_is_read(
    gateway: Gateway, framing: str, credential: str, expect: bool
) -> None:
    if not expect and framing == "content-length: 100":
        return  # such a body comes with its head, or right behind it
    head = f"POST {CHAT} HTTP/1.1\r\nhost: g\r\ncontent-type: application/json\r\n{credential}{framing}\r\n"
    with wire.connect(gateway.http) as connection:
        connection.sendall((head + ("expect: 100-continue\r\n\r\n" if expect else "\r\n")).encode())
        answer = wire.read_response(connection)
    assert (answer.status, answer.header("connection")) == (401, "close")
    assert json.loads(answer.body)["error"]["code"] == "unauthenticated"


def test_with_credentials_the_body_is_asked_for(gateway: Gateway, whole: NewKey) -> None:
    body = json.dumps(chat("allowed", pad="x" * 100_000)).encode()
    head = f"POST {CHAT} HTTP/1.1\r\nhost: g\r\ncontent-type: application/json\r\nauthorization: Bearer {whole.text}\r\n"
    with wire.connect(gateway.http) as connection:
        connection.sendall(f"{head}content-length: {len(body)}\r\nexpect: 100-continue\r\n\r\n".encode())
        assert connection.recv(25) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(body)
        assert wire.read_response(connection).status == 200


@pytest.mark.parametrize("path", [CHAT, "/chat", "/v1/classify-task", SPEECH])
def test_what_is_wrong_with_a_stranger_s_request_is_its_credentials(gateway: Gateway, http: httpx.Client, path: str) -> None:
    for given in ({"content": b"{"}, {"json": {"model": 5}}, {"content": b"x", "headers": {"content-type": "text/plain"}}):
        answer = http.post(path, **given)
        assert answer.status_code == 401, (given, answer.text)


def test_a_stranger_is_counted_under_no_name_that_it_claims(gateway: Gateway, http: httpx.Client, whole: NewKey) -> None:
    claimed = {"x-lexora-tenant": "claimed", "x-lexora-user": "claimed", "x-forwarded-for": "192.0.2.1"}
    assert http.post(CHAT, json=chat("allowed", user="claimed"), headers=claimed).status_code == 401
    assert http.post(CHAT, content=b"{", headers=claimed).status_code == 401
    tenants = http.get("/stats", headers=bearer(whole)).json()["by_tenant"]
    assert "anonymous" in tenants
    assert not any("claimed" in name or "@" in name for name in tenants)


def test_a_facade_of_its_own_process_vouches_for_no_tenant(
    gateway: Gateway, engine: ScriptedEngine, some: NewKey, whole: NewKey
) -> None:
    with Facade(gateway) as facade, httpx.Client(base_url=facade.http, timeout=10, verify=False) as http:
        forbidden, missing = (asked(gateway, http, some, model) for model in ("forbidden", "forbidde2"))
        assert forbidden == missing
        assert forbidden["chat"][0] == 404
        claimed = {"x-lexora-tenant": "acme", "x-lexora-user": "acme"}
        for body in (json.dumps(chat("allowed")), json.dumps(chat("allowed", pad="x" * 200_000)), "{"):
            headers = claimed | {"content-type": "application/json"}
            assert http.post(CHAT, content=body, headers=headers).status_code == 401
        assert http.get("/v1/models").status_code == 401
        answer = http.post(CHAT, json=chat("allowed"), headers=bearer(whole) | claimed | {"x-request-id": "by-facade"})
        assert answer.status_code == 200
        line = wait_until(lambda: [json.loads(each) for each in gateway.lines if '"by-facade"' in each], "the line")[0]
        assert (line["tenant"], line["user"], line["key"]) == ("acme", "acme", whole.id)
        assert whole.text not in facade.output


# -- limits


def spellings(dice: random.Random) -> str:
    """A user's name in one of its forms of Unicode, in any case."""
    name = dice.choice(["José", "Ωmega", "ﬁona", "bob", "ｂｏｂ", f"bob-{dice.random()}"])
    name = unicodedata.normalize(dice.choice(["NFC", "NFD", "NFKC", "NFKD"]), name)
    return dice.choice([str.lower, str.upper, str.title, str])(name)


def evade(gateway: Gateway, http: httpx.Client, key: NewKey, dice: random.Random) -> bool:
    """One call of a client that says each time that it is another one; whether it was served."""
    name = spellings(dice)
    credential = dice.choice(
        [
            ("Authorization", f"bEaReR {key.text}"),
            ("AUTHORIZATION", f"Bearer {key.text}"),
            ("X-Api-Key", key.text),
            ("api-key", key.text),
        ]
    )
    body = chat("allowed") | dice.choice([{"user": name}, {"safety_identifier": name}, {"metadata": {"user_id": name}}, {}])
    claimed = dice.choice(
        [
            ("x-lexora-tenant", name),
            ("X-Lexora-User", name),
            ("x-forwarded-for", f"10.0.{dice.randrange(256)}.7"),
            ("x-lexora-session", name),
        ]
    )
    if dice.random() < 0.5:
        headers = [credential, (claimed[0], claimed[1].encode("utf-8").decode("latin-1"))]
        raw = [(one.encode(), two.encode("latin-1")) for one, two in headers]
        path = dice.choice([CHAT, "/v1/completions", "/chat"])
        body |= {"prompt": "Hi"}
        if dice.random() < 0.5:
            return http.post(path, json=body, headers=raw).status_code == 200
        with httpx.Client(base_url=gateway.http, verify=False, timeout=10) as other:
            return other.post(path, json=body, headers=raw).status_code == 200
    with grpc.insecure_channel(gateway.grpc) as channel:
        options = CallOptions(user=name, tenant=name if dice.random() < 0.5 else "")
        raw_call = RawCall(path=CHAT, body=json.dumps(body).encode())
        metadata = [(credential[0].lower(), credential[1])]
        if claimed[1].isascii():
            metadata.append((claimed[0].lower(), claimed[1]))
        try:
            Stub(channel).Generate(GenerateRequest(call=call_pb2.Call(options=options, raw=raw_call)), metadata=metadata)
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED:  # type: ignore[attr-defined]
                raise
            return False
        return True


def test_a_client_that_changes_all_that_it_may_change_has_one_limit(gateway: Gateway, http: httpx.Client, keys: Keys) -> None:
    tenant_s, own = keys.bare, keys.own
    dice = random.Random(10)
    assert sum(evade(gateway, http, own, dice) for _ in range(8)) == 2  # the key's own limit
    assert sum(evade(gateway, http, tenant_s, dice) for _ in range(40)) == BURST - 2  # of all its tenant's keys together
    refused = http.post(CHAT, json=chat("allowed", user="new"), headers=bearer(tenant_s))
    assert refused.status_code == 429
    assert "`limited`" in refused.json()["error"]["message"]
    named = http.post(CHAT, json=chat("allowed", user="new"), headers=bearer(own)).json()["error"]["message"]
    assert own.id in named or "`limited`" in named
    assert own.text not in named
    guess = http.post(CHAT, json=chat("guess"), headers=bearer(tenant_s))
    assert guess.status_code == 429  # names that are not there cost as much as others


def test_a_user_of_a_tenant_may_be_limited(gateway: Gateway, http: httpx.Client, whole: NewKey) -> None:
    ways: list[tuple[dict[str, Any], dict[str, str]]] = [
        ({"user": "slow"}, {}),
        ({"safety_identifier": "slow"}, {}),
        ({"user": "other"}, {"x-lexora-user": "slow"}),
    ]
    answers = [http.post(CHAT, json=chat("allowed", **fields), headers=bearer(whole) | more) for fields, more in ways]
    assert [answer.status_code for answer in answers] == [200, 429, 429]
    assert "`acme/slow`" in answers[1].json()["error"]["message"]
    for user in ("other", "slower", ""):
        assert http.post(CHAT, json=chat("allowed", user=user), headers=bearer(whole)).status_code == 200


def test_a_key_may_have_fewer_tokens_and_calls_at_once_than_its_tenant(
    gateway: Gateway, http: httpx.Client, engine: ScriptedEngine, keys: Keys
) -> None:
    few, answer, hold, asked = bearer(keys.few), engine.answer, threading.Event(), threading.Event()

    def held(connection: socket.socket, _: Any) -> None:
        asked.set()
        hold.wait(10)
        connection.sendall(answer if isinstance(answer, bytes) else b"")

    engine.answer = held
    try:
        with ThreadPoolExecutor(1) as pool, httpx.Client(base_url=gateway.http, timeout=10, verify=False) as other:
            first = pool.submit(http.post, CHAT, json=chat("allowed", max_tokens=1, user="a"), headers=few)
            assert asked.wait(10)
            second = other.post(CHAT, json=chat("allowed", max_tokens=1, user="b"), headers=few)
            hold.set()
            assert first.result(10).status_code == 200
    finally:
        hold.set()
        engine.answer = answer
    assert (second.status_code, "calls under way: 1 at once" in second.text) == (429, True)
    third = http.post(
        CHAT, json=chat("allowed", max_tokens=1000), headers=few
    )  # a minute's tokens are the most that is reserved
    assert (third.status_code, "tokens: 60 per minute" in third.text) == (429, True)
    assert (third.headers["x-ratelimit-limit-tokens"], keys.few.id in third.text) == ("60", True)
    assert http.post(CHAT, json=chat("allowed", max_tokens=1000), headers=bearer(keys.whole)).status_code == 200


def test_explain_is_of_the_caller(gateway: Gateway, http: httpx.Client, some: NewKey) -> None:
    headers = bearer(some) | {"x-lexora-explain": "1", "x-lexora-tenant": "other"}
    explained = http.post(CHAT, json=chat("allowed", user="bob"), headers=headers).json()
    tenant = explained["tenant"]
    assert (tenant["user"], tenant["key"], explained["verdict"]) == ("acme", some.id, "dispatch")
    assert tenant["reason"].startswith(f"`acme` (key `{some.id}`) has priority 50")
    with grpc.insecure_channel(gateway.grpc) as channel:
        ask = AdminServiceStub(channel).Explain
        forbidden, missing = (
            ask(ExplainRequest(model=name), metadata=tuple(bearer(some).items())) for name in ("forbidden", "gone")
        )
    assert (list(forbidden.targets), forbidden.error) == ([], ERROR_REASON_MODEL_NOT_FOUND)
    assert forbidden.route.reason.replace("forbidden", "NAME") == missing.route.reason.replace("gone", "NAME")


def test_log_recent_calls_and_metrics_go_by_tenant_and_key(
    gateway: Gateway, http: httpx.Client, some: NewKey, whole: NewKey
) -> None:
    key = bearer(some)
    before = gateway_metrics(http, whole, some)
    for name, body, status in (("named", chat("allowed", user="bob"), 200), ("refused", chat("forbidden"), 404)):
        assert http.post(CHAT, json=body, headers=key | {"x-request-id": f"by-{name}"}).status_code == status
    recent = {call["request_id"]: call for call in http.get("/stats/recent", headers=bearer(whole)).json()["calls"]}
    for name, user in (("by-named", "bob"), ("by-refused", None)):
        line = wait_until(lambda name=name: [json.loads(each) for each in gateway.lines if f'"{name}"' in each], name)[0]
        assert (line["tenant"], line["key"], line.get("user")) == ("acme", some.id, user)
        assert (recent[name]["tenant"], recent[name]["key"]) == ("acme", some.id)
    requests, tokens = (now - then for now, then in zip(gateway_metrics(http, whole, some), before, strict=True))
    assert (requests, tokens) == (2, 1)
    assert some.text not in gateway.output
    assert some.text.rpartition("-")[2] not in gateway.output


def gateway_metrics(http: httpx.Client, whole: NewKey, key: NewKey) -> tuple[float, float]:
    """Requests and input tokens of a key."""
    text = http.get("/metrics", headers=bearer(whole)).text
    names = ("lexora_tenant_requests_total", "lexora_tenant_tokens_input_total")
    requests, tokens = (metric(text, name, tenant="acme", key=key.id) for name in names)
    return requests, tokens
