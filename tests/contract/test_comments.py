"""Every rpc, message, field, oneof and enum value of the contract has a comment."""

import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
    OneofDescriptorProto,
)

from tests.support.process import REPOSITORY

PROTO = REPOSITORY / "proto"
FILES = sorted(path.relative_to(PROTO).as_posix() for path in PROTO.rglob("*.proto"))


@pytest.fixture(scope="module")
def described(tmp_path_factory: pytest.TempPathFactory) -> dict[str, FileDescriptorProto]:
    """The files of the contract with their comments."""
    out = tmp_path_factory.mktemp("proto") / "contract.binpb"
    buf = Path(sys.executable).parent / "buf"
    subprocess.run([str(buf), "build", str(PROTO), "--exclude-imports", "-o", str(out)], check=True, cwd=REPOSITORY)
    return {file.name: file for file in FileDescriptorSet.FromString(out.read_bytes()).file}


def elements(file: FileDescriptorProto) -> dict[tuple[int, ...], str]:
    """Everything that needs a comment: its path in the descriptor, and its name."""
    found: dict[tuple[int, ...], str] = {}

    def enum(item: EnumDescriptorProto, path: tuple[int, ...], prefix: str) -> None:
        found[path] = f"{prefix}{item.name}"
        for at, value in enumerate(item.value):
            found[(*path, EnumDescriptorProto.VALUE_FIELD_NUMBER, at)] = f"{prefix}{item.name}.{value.name}"

    def message(item: DescriptorProto, path: tuple[int, ...], prefix: str) -> None:
        if item.options.map_entry:
            return
        found[path] = name = f"{prefix}{item.name}"
        optional = {field.oneof_index for field in item.field if field.proto3_optional}
        for at, field in enumerate(item.field):
            found[(*path, DescriptorProto.FIELD_FIELD_NUMBER, at)] = f"{name}.{field.name}"
        oneof: OneofDescriptorProto
        for at, oneof in enumerate(item.oneof_decl):
            if at not in optional:
                found[(*path, DescriptorProto.ONEOF_DECL_FIELD_NUMBER, at)] = f"{name}.{oneof.name}"
        for at, nested in enumerate(item.nested_type):
            message(nested, (*path, DescriptorProto.NESTED_TYPE_FIELD_NUMBER, at), f"{name}.")
        for at, inner in enumerate(item.enum_type):
            enum(inner, (*path, DescriptorProto.ENUM_TYPE_FIELD_NUMBER, at), f"{name}.")

    for at, item in enumerate(file.message_type):
        message(item, (FileDescriptorProto.MESSAGE_TYPE_FIELD_NUMBER, at), "")
    for at, outer in enumerate(file.enum_type):
        enum(outer, (FileDescriptorProto.ENUM_TYPE_FIELD_NUMBER, at), "")
    for at, service in enumerate(file.service):
        path = (FileDescriptorProto.SERVICE_FIELD_NUMBER, at)
        found[path] = service.name
        for number, rpc in enumerate(service.method):
            found[(*path, 2, number)] = f"{service.name}.{rpc.name}"
    return found


def uncommented(file: FileDescriptorProto) -> list[str]:
    """Names of the elements without a comment of at least two words above them."""
    comments = {tuple(place.path): place.leading_comments.split() for place in file.source_code_info.location}
    return [name for path, name in elements(file).items() if len(comments.get(path, [])) < 2]


def test_the_contract_is_found(described: dict[str, FileDescriptorProto]) -> None:
    assert sorted(described) == FILES
    names = [name for file in described.values() for name in elements(file).values()]
    assert "RouterService.Generate" in names
    assert "ChatMessage.text" in names
    assert "Call.input" in names
    assert "ROLE_USER" in {name.rpartition(".")[2] for name in names}


@pytest.mark.parametrize("name", FILES)
def test_everything_has_a_comment(described: dict[str, FileDescriptorProto], name: str) -> None:
    assert uncommented(described[name]) == []


def test_a_missing_comment_is_found(described: dict[str, FileDescriptorProto]) -> None:
    file = FileDescriptorProto()
    file.CopyFrom(described["lexora/v1/router.proto"])
    (place,) = (place for place in file.source_code_info.location if tuple(place.path) == (6, 0, 2, 0))
    place.leading_comments = ""
    assert uncommented(file) == ["RouterService.Generate"]
