"""`lexora keys`: the same in a file and at a running router, and what a caller with each key then may do."""

import json
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import Result
from typer.testing import CliRunner

from lexora_cli.main import app
from lexora_router.access.key_file import read_keys
from lexora_router.access.key_format import NewKey, is_key
from tests.e2e.test_keys import HI, IN_FORCE_SECONDS
from tests.support.keys import ALL, add_key
from tests.support.queueing import CHAT, MODEL
from tests.support.servers import Gateway, Simulator, calm_config
from tests.support.wire import wait_until


@pytest.fixture(scope="module")
def keys_file(folder: Path) -> Path:
    return folder / "keys.jsonl"


@pytest.fixture(scope="module")
def admin(keys_file: Path) -> NewKey:
    return add_key(keys_file, name="ops", scopes=ALL)


@pytest.fixture(scope="module")
def closed(sim: Simulator, folder: Path, keys_file: Path, admin: NewKey) -> Iterator[Gateway]:
    config = calm_config(main={"url": sim.url, "models": [MODEL]})
    config["auth"] = {"mode": "keys", "keys_file": str(keys_file)}
    with Gateway(config, folder) as process:
        yield process


class Lexora:
    """The command, over a file or at a router."""

    def __init__(self, place: list[str], key: str = "") -> None:
        self.place = place
        self.key = key

    def run(self, *arguments: str, stdin: str | None = None) -> Result:
        return CliRunner().invoke(app, [*arguments, *self.place], input=stdin, env={"LEXORA_API_KEY": self.key})

    def done(self, *arguments: str, stdin: str | None = None) -> str:
        result = self.run("keys", *arguments, stdin=stdin)
        assert result.exit_code == 0, result.stderr
        return result.stdout

    def data(self, *arguments: str, stdin: str | None = None) -> Any:
        return json.loads(self.done(*arguments, "--json", stdin=stdin))


@pytest.fixture(scope="module", params=["file", "router"])
def lexora(request: pytest.FixtureRequest, closed: Gateway, keys_file: Path, admin: NewKey) -> Lexora:
    if request.param == "file":
        return Lexora(["--file", str(keys_file)])
    return Lexora(["--router", closed.grpc], admin.text)


def status(gateway: Gateway, key: str) -> int:
    return httpx.post(f"{gateway.http}{CHAT}", json=HI, headers={"x-api-key": key}, verify=False).status_code


def takes(gateway: Gateway, key: str) -> None:
    wait_until(lambda: status(gateway, key) == 200, "the key to hold", 5)


def refuses(gateway: Gateway, key: str) -> None:
    wait_until(lambda: status(gateway, key) == 401, "the key to hold no more", 5)


def test_a_key_lives_from_its_creation_to_its_revocation(lexora: Lexora, closed: Gateway, keys_file: Path) -> None:
    made = lexora.run(
        "keys", "create", "--name", "ci", "--tenant", "acme", "--models", "qwen*,llama*", "--models", "x",
        "--rate", "50", "--priority", "low", "--max-priority", "70", "--max-concurrency", "4",
        "--tokens-per-minute", "9000", "--expires", "90d",
    )  # fmt: skip
    key = made.stdout.strip()
    assert (made.exit_code, is_key(key)) == (0, True), made.stderr
    assert key not in made.stderr
    assert "shown once" in made.stderr
    takes(closed, key)
    shown = lexora.data("show", f"sk-lx-{key.split('-')[2]}")
    assert (shown["name"], shown["tenant"], shown["scopes"], shown["state"]) == ("ci", "acme", ["call"], "valid")
    assert (shown["models"], shown["rate"], shown["priority"], shown["max_priority"]) == (["qwen*", "llama*", "x"], 50, 0, 70)
    assert (shown["max_concurrent"], shown["tokens_per_minute"]) == (4, 9000)
    assert 89 * 86400 < time.mktime(time.strptime(shown["expires"], "%Y-%m-%dT%H:%M:%SZ")) - time.time() < 91 * 86400
    listed = lexora.data("list", "--tenant", "acme", "--valid")
    assert shown in listed
    text = lexora.done("list")
    assert key.split("-")[2] in text
    assert "\x1b" not in text
    changed = time.monotonic()
    assert lexora.done("revoke", shown["id"]).startswith(f"revoked: {shown['id']} (ci)")
    refuses(closed, key)
    assert time.monotonic() - changed < IN_FORCE_SECONDS
    assert shown["id"] not in {each["id"] for each in lexora.data("list", "--valid")}
    assert lexora.data("show", shown["id"])["state"] == "revoked"
    secret, digest = key.split("-")[3], next(each.sha256 for each in read_keys(keys_file).values() if each.id == shown["id"])
    for place in (keys_file.read_text(), closed.output, text, json.dumps(listed)):
        assert secret not in place
    for place in (closed.output, text, json.dumps(listed)):
        assert digest not in place
    assert stat.S_IMODE(keys_file.stat().st_mode) == 0o600


def test_old_and_new_hold_together_for_the_time_that_was_said(lexora: Lexora, closed: Gateway) -> None:
    old = lexora.data("create", "--name", "turn", "--admin")
    takes(closed, old["key"])
    new = lexora.data("rotate", old["id"], "--overlap", "1h")
    takes(closed, new["key"])
    takes(closed, old["key"])
    assert (new["rotated_from"], new["scopes"], new["name"]) == (old["id"], ["call", "observe", "admin"], "turn")
    assert (new["replaced"]["id"], new["replaced"]["state"]) == (old["id"], "valid")
    last = lexora.data("rotate", new["id"], "--overlap", "0")
    assert last["replaced"]["state"] == "expired"
    takes(closed, last["key"])
    refuses(closed, new["key"])
    assert status(closed, old["key"]) == 200


def test_keys_from_elsewhere_go_on_to_hold(lexora: Lexora, closed: Gateway, tmp_path: Path) -> None:
    place = "f" if lexora.key == "" else "r"
    foreign = f"sk-of-another-gateway-{place}-0123456789"
    lines = [json.dumps({"name": "old", "key": foreign, "models": ["qwen*"]}), ""]
    assert [each["name"] for each in lexora.data("import", "-", stdin="\n".join(lines))] == ["old"]
    takes(closed, foreign)
    assert lexora.data("import", "-", stdin="\n".join(lines)) == []
    other = tmp_path / "other.jsonl"
    key = add_key(other, name="copied")
    assert "imported 1 of 1 keys" in lexora.done("import", str(other))
    takes(closed, key.text)
    assert lexora.data("show", key.id)["name"] == "copied"
    for line in ('{"name":"x"}', '{"name":"x","key":"short"}', '{"name":"x","key":5}', "[]", '{"name":"x","sha256":"zz"}', "{"):
        bad = lexora.run("keys", "import", "-", stdin=line)
        assert (bad.exit_code, bad.stderr.startswith("lexora: -:1: ")) == (1, True), bad.stderr
        assert "short" not in bad.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["show", "absent"], 1, "No key has the id 'absent'"),
        (["revoke", "absent"], 1, "No key has the id 'absent'"),
        (["create", "--name", "n", "--rate", "0"], 1, "the key cannot be made: Expected `float` > 0.0 - at `rate`"),
        (["create", "--name", "n", "--expires", "soon"], 2, "write a span such as 90d"),
        (["create", "--name", "n", "--priority", "urgent"], 2, "priority must be high, normal, low"),
        (["create"], 2, "Missing option '--name'"),
        (["import", "/no/such/file"], 1, "/no/such/file: cannot be read"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(lexora: Lexora, arguments: list[str], code: int, said: str) -> None:
    result = lexora.run("keys", *arguments)
    assert result.exit_code == code
    assert said.lower() in " ".join(result.stderr.split()).lower()
    assert "Traceback" not in result.stderr
    assert not result.stdout


def test_only_an_admin_edits_keys_at_a_router(closed: Gateway, keys_file: Path, admin: NewKey) -> None:
    plain_key = add_key(keys_file, name="plain")
    takes(closed, plain_key.text)
    before = keys_file.read_bytes()
    for key, reason in (("", "UNAUTHENTICATED"), (plain_key.text, "PERMISSION_DENIED")):
        at_router = Lexora(["--router", closed.grpc], key)
        for arguments in (["list"], ["create", "--name", "mine", "--admin"], ["revoke", admin.id], ["rotate", admin.id]):
            result = at_router.run("keys", *arguments)
            assert (result.exit_code, result.stdout) == (1, "")
            assert reason in result.stderr
    assert keys_file.read_bytes() == before


def test_operations_are_named_by_word_or_path(lexora: Lexora, closed: Gateway) -> None:
    made = lexora.data("create", "--name", "embedder", "--operations", "embeddings,/v1/sc*")
    assert made["operations"] == ["/v1/embeddings", "/v2/embed", "/v1/sc*"]
    wait_until(lambda: status(closed, made["key"]) == 403, "the key to be known", 5)
    wrong = lexora.run("keys", "create", "--name", "n", "--operations", "dance")
    assert (wrong.exit_code, "none of chat, classify" in " ".join(wrong.stderr.replace("│", "").split())) == (2, True)


def test_a_key_for_a_gateway_that_asks_for_none_comes_with_a_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    made = Lexora([]).run("keys", "create", "--name", "first")
    assert made.exit_code == 0
    assert is_key(made.stdout.strip())
    assert "no key is asked for: auth.mode is off in the configuration, of which there is no file yet" in made.stderr
    assert len(read_keys(tmp_path / "lexora_keys.jsonl")) == 1


def test_whoami(closed: Gateway, admin: NewKey) -> None:
    place = ["--router", closed.grpc]
    known = Lexora(place, admin.text).run("whoami")
    assert (known.exit_code, f"{admin.id} (ops)" in known.stdout) == (0, True)
    assert "call, observe, admin" in known.stdout
    assert json.loads(Lexora(place, admin.text).run("whoami", "--json").stdout)["key"] == admin.id
    unknown = Lexora(place).run("whoami")
    assert (unknown.exit_code, "UNAUTHENTICATED" in unknown.stderr) == (1, True)


def test_the_file_is_that_of_the_configuration(closed: Gateway, admin: NewKey) -> None:
    listed = Lexora(["--config", str(closed.config_file)]).data("list")
    assert listed[0]["id"] == admin.id
