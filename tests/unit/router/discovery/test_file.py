import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from lexora_router.discovery.file import FileTargets, addresses_in
from lexora_router.discovery.source import MAX_ADDRESSES, LookFailed

GROUPS = [
    {"targets": ["10.0.0.1:8000", "gpu2:8000"], "labels": {"model": "a", "zone": 1}},
    {"targets": ["[fd00::3]:8000"], "labels": {"model": "b"}},
    {"targets": ["10.0.0.1:8000"]},
]


@pytest.mark.parametrize(
    ("labels", "wanted"),
    [
        ({}, ["10.0.0.1:8000", "gpu2:8000", "[fd00::3]:8000", "10.0.0.1:8000"]),
        ({"model": "a"}, ["10.0.0.1:8000", "gpu2:8000"]),
        ({"model": "a", "zone": "1"}, ["10.0.0.1:8000", "gpu2:8000"]),
        ({"model": "a", "zone": "2"}, []),
    ],
)
def test_targets_are_those_of_the_groups_with_the_labels(labels: dict[str, str], wanted: list[str]) -> None:
    assert list(addresses_in(json.dumps(GROUPS).encode(), labels)) == wanted


def test_yaml_and_an_empty_list_are_read_as_well() -> None:
    assert list(addresses_in(b"# engines\n- targets:\n  - gpu1:8000\n  labels:\n    model: a\n", {"model": "a"})) == [
        "gpu1:8000"
    ]
    assert list(addresses_in(b"[]", {})) == []


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (b"", "must be a list of groups"),
        (b"{}", "must be a list of groups"),
        (b'[{"targets": ["gpu1:8000"]}, {"tar', "is neither JSON nor YAML"),
        (b'["gpu1:8000"]', "group 1 has no list of targets"),
        (b'[{"targets": "gpu1:8000"}]', "group 1 has no list of targets"),
        (b'[{"targets": []}, {"targets": [], "labels": ["a"]}]', "labels of group 2 must be a map"),
        (b'[{"targets": ["http://gpu1:8000"]}]', "a target of group 1 is not host:port"),
        (b'[{"targets": [8000]}]', "a target of group 1 is not host:port"),
        (b'[{"targets": ["gpu1"]}]', "a target of group 1 has no port"),
        (b'[{"targets": ["gpu1:0"]}]', "a target of group 1 has no port"),
        (b'[{"targets": ["gpu1:99999"]}]', "a target of group 1 is not an address"),
        (b'[{"targets": ["user@gpu1:80"]}]', "a target of group 1 must not contain a user"),
        (b"[" * 100_000, "is neither JSON nor YAML"),
        (b"\xff\xfe\x00", "is neither JSON nor YAML"),
    ],
)
def test_a_file_that_is_none_says_what_is_wrong(text: bytes, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        list(addresses_in(text, {}))


def groups(*targets: str) -> str:
    return json.dumps([{"targets": targets}])


async def look(source: FileTargets) -> Any:
    try:
        return list((await source.look()).addresses)
    except LookFailed as failure:
        return str(failure)


async def test_a_file_is_followed_and_a_broken_one_says_so_until_it_is_mended(tmp_path: Path) -> None:
    file = tmp_path / "engines.json"
    source = FileTargets(file, {})
    assert await look(source) == "cannot be read: No such file or directory"
    file.write_text(groups("b:2", "a:1", "b:2"))
    assert await look(source) == ["a:1", "b:2"]
    file.write_text('[{"targets": ["a:1"')
    assert [await look(source), await look(source)] == ["is neither JSON nor YAML, line 1"] * 2
    file.write_text(groups())
    assert await look(source) == []
    file.unlink()
    assert await look(source) == "cannot be read: No such file or directory"
    file.mkdir()
    assert await look(source) == "cannot be read: Is a directory"


async def test_a_file_that_is_being_written_is_read_when_it_is_whole(tmp_path: Path) -> None:
    """Half of a list in YAML is a list as well: the endpoints behind it would be gone for a moment."""
    file = tmp_path / "engines.yaml"
    file.write_text("- targets: [a:1, b:2]\n")
    source = FileTargets(file, {})
    assert await look(source) == ["a:1", "b:2"]
    with file.open("w") as stream:
        stream.write("- targets:\n  - a:1\n")
        stream.flush()
        looking = asyncio.create_task(look(source))
        await asyncio.sleep(0.1)
        stream.write("  - b:2\n  - c:3\n")
    assert await looking == ["a:1", "b:2", "c:3"]


async def test_there_is_a_bound(tmp_path: Path) -> None:
    file = tmp_path / "engines.json"
    file.write_text(groups(*(f"10.0.{n // 256}.{n % 256}:8000" for n in range(MAX_ADDRESSES + 5))))
    found = await FileTargets(file, {}).look()
    assert (len(found.addresses), found.left_out) == (MAX_ADDRESSES, 5)
    file.write_text(" " * 2**21)
    assert await look(FileTargets(file, {})) == "is larger than 1048576 bytes"
