"""The file of keys: what is written is read again, and nothing that is half right is taken."""

import contextlib
import os
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.keys import PAST, add_key, record_of

from lexora_contract.access import Scope
from lexora_router.access.key_file import KeyFileError, edit_keys, open_to_others, read_keys
from lexora_router.access.key_format import new_key
from lexora_router.access.key_record import KeyRecord, instant

HEAD = '{"lexora_keys":1}\n'
LINE = f'{{"id":"{"a" * 12}","sha256":"{"0" * 64}","name":"n","tenant":"t"}}\n'


def test_every_field_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "keys.jsonl"
    full = record_of(
        new_key(),
        scopes=(Scope.CALL, Scope.ADMIN),
        models=("qwen*", "é"),
        operations=("/v1/*",),
        rate=2.5,
        burst=4,
        tokens_per_minute=10,
        max_concurrent=2,
        priority=50,
        max_priority=100,
        created=instant(time.time()),
        expires=PAST,
        revoked=PAST,
        rotated_from="b" * 12,
    )
    edit_keys(path, lambda records: [*records, full])
    add_key(path)
    assert next(iter(read_keys(path).values())) == full
    assert len(read_keys(path)) == 2
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert sorted(each.name for each in tmp_path.iterdir()) == ["keys.jsonl", "keys.jsonl.lock"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", ":1: is no file of keys"),
        ("auth: off\n", ":1: is no file of keys"),
        ('{"lexora_keys":2}\n', ":1: is of version 2"),
        (HEAD + LINE[:-9], ":2: "),
        (HEAD + LINE.replace('"tenant"', '"rate":0,"tenant"'), r":2: .*\$\.rate"),
        (HEAD + LINE.replace('"tenant"', '"budget":1,"tenant"'), ":2: .*unknown field `budget`"),
        (HEAD + LINE.replace('"tenant":"t"', '"tenant":""'), r":2: .*\$\.tenant"),
        (HEAD + LINE.replace("000", "00g"), r":2: sha256 must be 64 hex"),
        (HEAD + LINE.replace('"tenant"', '"expires":"2026-01-01T00:00:00","tenant"'), r":2: .*\$\.expires"),
        (HEAD + "[" * 5000 + "\n", ":2: "),
        ("[" * 5000 + "\n", ":1: is no file of keys"),
        (HEAD + LINE + "\n" + LINE, ":4: this key is in the file twice"),
        (HEAD + LINE + LINE.replace("aaa", "bbb"), ":3: this key is in the file twice"),
    ],
)
def test_a_file_that_is_wrong_is_refused_with_the_line(tmp_path: Path, text: str, problem: str) -> None:
    path = tmp_path / "keys.jsonl"
    path.write_text(text)
    with pytest.raises(KeyFileError, match=problem) as caught:
        read_keys(path)
    assert "0" * 60 not in str(caught.value)
    before = path.read_bytes()
    with pytest.raises(KeyFileError):
        add_key(path)
    assert path.read_bytes() == before


def test_a_pipe_in_its_place_is_refused_at_once(tmp_path: Path) -> None:
    path = tmp_path / "keys.jsonl"
    os.mkfifo(path, 0o600)  # to open it would wait for a writer, for ever
    with pytest.raises(KeyFileError, match="not a regular file"):
        read_keys(path)


def test_others_may_not_write_it(tmp_path: Path) -> None:
    path = tmp_path / "keys.jsonl"
    add_key(path)
    assert not open_to_others(path)
    path.chmod(0o644)
    assert open_to_others(path)
    assert read_keys(path)
    path.chmod(0o662)
    with pytest.raises(KeyFileError, match="chmod 600"):
        read_keys(path)


def test_a_change_that_fails_leaves_the_file_and_the_folder_as_they_were(tmp_path: Path) -> None:
    path = tmp_path / "keys.jsonl"
    add_key(path)
    before = path.read_bytes()

    def broken(records: object) -> list[KeyRecord]:
        raise LookupError

    with pytest.raises(LookupError):
        edit_keys(path, broken)
    assert path.read_bytes() == before
    assert len(os.listdir(tmp_path)) == 2


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_root_edits_the_file_of_a_service(tmp_path: Path) -> None:
    os.chown(tmp_path, 12345, 12345)
    path = tmp_path / "keys.jsonl"
    for _ in range(2):
        add_key(path)
        assert {each.stat().st_uid for each in tmp_path.iterdir()} == {12345}


def test_a_link_stays_one(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    real, link = tmp_path / "real" / "keys.jsonl", tmp_path / "keys.jsonl"
    add_key(real)
    link.symlink_to(real)
    add_key(link)
    assert link.is_symlink()
    assert len(read_keys(real)) == 2


def test_two_writers_lose_no_key(tmp_path: Path) -> None:
    path = tmp_path / "keys.jsonl"
    write = "from pathlib import Path; from tests.support.keys import add_key; "
    write += f"[add_key(Path({str(path)!r})) for _ in range(20)]"
    writers = [subprocess.Popen([sys.executable, "-c", write]) for _ in range(3)]
    assert [writer.wait(50) for writer in writers] == [0, 0, 0]
    assert len(read_keys(path)) == 60


@given(st.binary(max_size=300))
def test_no_bytes_do_more_than_be_refused(data: bytes) -> None:
    path = Path(f"/tmp/lexora-keys-{os.getpid()}.jsonl")
    try:
        for head in (b"", HEAD.encode()):
            path.write_bytes(head + data)
            with contextlib.suppress(KeyFileError):
                assert all(isinstance(record, KeyRecord) for record in read_keys(path).values())
    finally:
        path.unlink()
