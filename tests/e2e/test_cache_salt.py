"""What engines get to keep the prefix caches of tenants apart, on raw bytes and as the simulator's cache has it."""

import json
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from lexora_router.access.key_format import NewKey
from tests.support.engine import ScriptedEngine
from tests.support.keys import add_key
from tests.support.queueing import CHAT
from tests.support.raw_server import reply
from tests.support.servers import Gateway, Simulator, base_config, write_config
from tests.support.wire import wait_until

MODEL = "qwen3-32b"
TENANTS = ("acme", "acme-test", "other", "off")
SECRET = "a secret of many characters".replace(" ", "-")
PATHS = {
    CHAT: {"messages": [{"role": "user", "content": "Hi"}]},
    "/v1/completions": {"prompt": "Hi"},
    "/v1/responses": {"input": "Hi"},
    "/v1/messages": {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1},
    "/v1/embeddings": {"input": "Hi"},
    "/v1/score": {"text_1": "a", "text_2": "b"},
}


@pytest.fixture(scope="module")
def engine() -> Iterator[ScriptedEngine]:
    with ScriptedEngine(MODEL) as scripted:
        scripted.answer = reply(b'{"id":"x","object":"chat.completion","choices":[]}')
        yield scripted


@pytest.fixture(scope="module")
def keys(folder: Path) -> dict[str, NewKey]:
    return {tenant: add_key(folder / "keys.jsonl", tenant=tenant) for tenant in TENANTS}


def config(folder: Path, auth: dict[str, Any], **backends: dict[str, Any]) -> dict[str, Any]:
    return base_config(**backends) | {"auth": {"mode": "keys", "keys_file": str(folder / "keys.jsonl")} | auth}


@pytest.fixture(scope="module")
def gateway(engine: ScriptedEngine, sim: Simulator, folder: Path, keys: dict[str, NewKey]) -> Iterator[Gateway]:
    backends = {
        "main": {"url": engine.url, "models": ["scripted"]},
        "sim": {"url": sim.url, "models": [MODEL]},
        "plain": {"url": engine.url, "type": "openai_compatible", "models": ["plain"]},
    }
    auth = {"share_prefix_cache": [["acme", "acme-*"]], "cache_salt_secret": SECRET}
    with Gateway(config(folder, auth, **backends), folder) as process:
        yield process


def bearer(key: NewKey) -> dict[str, str]:
    return {"authorization": f"Bearer {key.text}", "content-type": "application/json"}


def ask(gateway: Gateway, key: NewKey, path: str = CHAT, **body: Any) -> dict[str, Any]:
    headers = {"authorization": f"Bearer {key.text}"}
    answer = httpx.post(f"{gateway.http}{path}", json=PATHS[path] | body, headers=headers, timeout=10, verify=False)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


@pytest.mark.parametrize("path", PATHS)
def test_each_tenant_s_prompts_are_salted_by_the_gateway(
    gateway: Gateway, engine: ScriptedEngine, keys: dict[str, NewKey], path: str
) -> None:
    def salts(**body: Any) -> dict[str, str]:
        found = {}
        for tenant, key in keys.items():
            ask(gateway, key, path, model="scripted", **body)
            assert engine.last.body.count(b'"cache_salt"') == 1
            found[tenant] = json.loads(engine.last.body)["cache_salt"]
        return found

    own = salts()
    assert len(own["other"]) == 43
    assert own["acme"] == own["acme-test"]
    assert len(set(own.values())) == 3
    assert salts(cache_salt=own["acme"]) == own  # another tenant's is replaced
    assert salts(user="acme") == own


def outermost(body: bytes) -> list[tuple[str, Any]]:
    """The keys and values at the top of an object, repeated keys as well."""
    found: list[list[tuple[str, Any]]] = []
    json.loads(body, object_pairs_hook=lambda pairs: found.append(pairs) or dict(pairs))
    return found[-1]


@pytest.mark.parametrize(
    "written",
    [
        b'"cache_salt":"%b"',
        b'"cache_salt":"x","cache_salt":"%b"',
        b'"cache\\u005fsalt":"%b"',
        b'"cache_salt":"x","\\u0063ache_sal\\u0074":"%b"',
        b'"Cache_Salt":"%b","extra_body":{"cache_salt":"x"},"messages":[{"role":"user","content":"Hi","cache_salt":"y"}]',
    ],
)
def test_a_client_s_own_salt_is_never_what_the_engine_reads(
    gateway: Gateway, engine: ScriptedEngine, keys: dict[str, NewKey], written: bytes
) -> None:
    """vLLM reads a body as Python's json does: of a key that is there twice the last one, upper and lower case apart."""
    ask(gateway, keys["acme"], model="scripted")
    own, acme = json.loads(engine.last.body)["cache_salt"], bearer(keys["acme"])
    ask(gateway, keys["other"], model="scripted")
    theirs = json.loads(engine.last.body)["cache_salt"]
    for padding in (b"", b"x" * 20_000):
        body = b'{"model":"scripted","messages":[],"padding":"%b",%b}' % (padding, written.replace(b"%b", theirs.encode()))
        assert httpx.post(f"{gateway.http}{CHAT}", content=body, headers=acme, verify=False).status_code == 200
        assert [value for name, value in outermost(engine.last.body) if name == "cache_salt"] == [own]


def test_other_engines_and_other_operations_get_none(gateway: Gateway, engine: ScriptedEngine, keys: dict[str, NewKey]) -> None:
    ask(gateway, keys["acme"], model="plain", cache_salt="theirs")
    assert json.loads(engine.last.body)["cache_salt"] == "theirs"
    headers = {"authorization": f"Bearer {keys['acme'].text}"}
    body = {"model": "scripted", "prompt": "Hi"}
    assert httpx.post(f"{gateway.http}/tokenize", json=body, headers=headers, verify=False).status_code == 200
    assert b"cache_salt" not in engine.last.body


def test_a_tenant_does_not_find_what_another_one_has_asked(gateway: Gateway, sim: Simulator, keys: dict[str, NewKey]) -> None:
    sim.clear()
    prompt = [{"role": "user", "content": "A long secret that is worth to be guessed. " * 40}]

    def cached(tenant: str, stream: bool = False) -> int:
        before = hits(sim)
        ask(gateway, keys[tenant], model=MODEL, messages=prompt, max_tokens=1)
        return int(hits(sim) - before)

    assert cached("acme") == 0
    assert cached("acme") > 100
    assert cached("other") == 0
    assert cached("acme-test") > 100
    assert cached("other") > 100


def test_one_idempotency_key_of_two_tenants_is_two_to_the_engine(
    gateway: Gateway, engine: ScriptedEngine, keys: dict[str, NewKey]
) -> None:
    def sent(tenant: str) -> str | None:
        headers = {"x-api-key": keys[tenant].text, "idempotency-key": "order-7"}
        body = PATHS[CHAT] | {"model": "plain"}
        httpx.post(f"{gateway.http}{CHAT}", json=body, headers=headers, verify=False).raise_for_status()
        return engine.last.header("idempotency-key")

    assert sent("acme") == sent("acme") != sent("other")
    assert sent("other") != "order-7"


def hits(sim: Simulator) -> float:
    text = httpx.get(f"{sim.url}/metrics", verify=False).text
    return sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith("vllm:prefix_cache_hits_total"))


def test_a_configured_secret_is_the_same_everywhere_and_a_random_one_is_not(
    gateway: Gateway, engine: ScriptedEngine, keys: dict[str, NewKey], tmp_path: Path, folder: Path
) -> None:
    def salt(of: Gateway) -> str:
        ask(of, keys["other"], model="scripted")
        return str(json.loads(engine.last.body)["cache_salt"])

    first, backend = salt(gateway), {"main": {"url": engine.url, "models": ["scripted"]}}
    named = config(folder, {"cache_salt_secret_env": "SALT"}, **backend)
    with Gateway(named, tmp_path, env={"SALT": SECRET}) as replica:
        assert salt(replica) == first
        assert SECRET not in replica.output
    with Gateway(named, tmp_path) as unset:
        assert salt(unset) != first
        assert salt(unset) == salt(unset)


def test_a_random_secret_is_that_of_all_workers(
    engine: ScriptedEngine, keys: dict[str, NewKey], tmp_path: Path, folder: Path
) -> None:
    made = config(folder, {}, main={"url": engine.url, "models": ["scripted"]})
    made["server"]["workers"] = 2
    salts: Counter[str] = Counter()
    with Gateway(made, tmp_path) as workers:
        for _ in range(24):  # each on a connection of its own: they go to both
            ask(workers, keys["acme"], model="scripted")
            salts[json.loads(engine.last.body)["cache_salt"]] += 1
    assert list(salts.values()) == [24]


def test_without_credentials_nothing_is_set_and_a_reload_that_asks_for_them_sets_it(
    engine: ScriptedEngine, keys: dict[str, NewKey], tmp_path: Path, folder: Path
) -> None:
    backend = {"main": {"url": engine.url, "models": ["scripted"]}}
    headers = {"content-type": "application/json"}
    body = json.dumps({"model": "scripted", "messages": [], "cache_salt": "theirs"}).encode()

    def post(key: NewKey | None = None) -> int:
        shown = {} if key is None else {"x-api-key": key.text}
        return httpx.post(f"{process.http}{CHAT}", content=body, headers=headers | shown, verify=False).status_code

    def reload(auth: dict[str, Any], applied: int) -> None:
        write_config(config(folder, auth, **backend), tmp_path)
        process.signal(signal.SIGHUP)
        wait_until(lambda: process.output.count("configuration_applied") >= applied, "the reload")

    def salts() -> list[str]:
        assert [post(keys[tenant]) for tenant in ("acme", "other")] == [200, 200]
        return [json.loads(request.body)["cache_salt"] for request in engine.requests[-2:]]

    with Gateway(base_config(**backend) | {"reload": {"watch": False}}, tmp_path) as process:
        assert (post(), engine.last.body) == (200, body)
        reload({}, 1)
        assert post() == 401
        acme, other = salts()
        assert len({acme, other, "theirs"}) == 3
        reload({"share_prefix_cache": [["acme", "partner"]]}, 2)
        shared, same = salts()
        assert same == other  # a random secret is that of the process, not of its configuration
        assert shared != acme
