"""The contract in other languages: its names collide in none, and the generators that are at hand take it."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor, FileDescriptor

from lexora.v1 import admin_pb2, router_pb2
from tests.unit.docs.pages import ROOT

PROTO = ROOT / "proto"
PROTOS = sorted(str(file.relative_to(PROTO)) for file in PROTO.rglob("*.proto"))
# What Java's generator makes of a field: accessors with these endings beside the one of its name.
ENDINGS = {
    FieldDescriptor.TYPE_STRING: ("bytes",),
    FieldDescriptor.TYPE_ENUM: ("value",),
    FieldDescriptor.TYPE_MESSAGE: ("builder", "or_builder"),
}
GENERATORS = {
    "java": (["protoc", "--java_out=OUT"], "io/github/spirrow/lexora/v1/GenerateRequest.java"),
    "go": (["protoc", "--go_out=OUT", "--go_opt=module=github.com/spirrow/spirrow-lexora/gen/go"], "lexora/v1/router.pb.go"),
    "es": (["protoc", "--es_out=OUT", "--es_opt=target=ts"], "lexora/v1/router_pb.ts"),
}


def files() -> list[FileDescriptor]:
    """The files of the contract."""
    found: dict[str, FileDescriptor] = {}
    todo = [admin_pb2.DESCRIPTOR, router_pb2.DESCRIPTOR]
    while todo:
        file = todo.pop()
        if file.name.startswith("lexora/") and file.name not in found:
            found[file.name] = file
            todo += file.dependencies
    assert len(found) == len(PROTOS)
    return list(found.values())


def messages(of: Iterator[Descriptor]) -> Iterator[Descriptor]:
    for message in of:
        yield message
        yield from messages(iter(message.nested_types))


def collisions(message: Descriptor) -> set[str]:
    """Fields whose accessor another field of the message has as well."""
    made = set()
    for field in message.fields:
        endings = (*ENDINGS.get(field.type, ()), *(("count", "list", "map") if field.is_repeated else ()))
        made |= {f"{field.name}_{ending}" for ending in endings}
    made |= {name for group in message.oneofs for name in (group.name, f"{group.name}_case")}
    return made & set(message.fields_by_name)


def test_no_field_has_the_accessor_of_another() -> None:
    for file in files():
        for message in messages(iter(file.message_types_by_name.values())):
            assert not collisions(message), message.full_name


def test_every_file_says_what_it_is_called_elsewhere() -> None:
    for file in files():
        options = file.GetOptions()
        name = "".join(part.capitalize() for part in Path(file.name).stem.split("_"))
        assert options.go_package == "github.com/spirrow/spirrow-lexora/gen/go/lexora/v1;lexorav1"
        assert (options.java_package, options.java_outer_classname, options.java_multiple_files) == (
            "io.github.spirrow.lexora.v1",
            f"{name}Proto",
            True,
        )


@pytest.mark.parametrize("language", GENERATORS)
def test_the_generator_takes_it(language: str, tmp_path: Path) -> None:
    command, expected = GENERATORS[language]
    if not shutil.which("protoc") or (language != "java" and not shutil.which(f"protoc-gen-{language}")):
        pytest.skip(f"needs protoc and its generator for {language}")
    command = [word.replace("OUT", str(tmp_path)) for word in command]
    done = subprocess.run([*command, *PROTOS], cwd=PROTO, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / expected).stat().st_size > 1000
