"""Messages of the contract with made-up values, and bytes that are nearly such messages."""

from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from hypothesis import strategies as st

from lexora_contract.operations import CHAT, EMBEDDINGS

MODEL = "qwen3-32b"

# Texts that open doors: names that are there, JSON, and what is long, odd or not what it seems.
TEXTS = st.one_of(
    st.text(max_size=20),
    st.sampled_from([MODEL, "embed-small", "auto", CHAT, EMBEDDINGS, "user", "{}", '{"a":1}', "\0", "../..", "é" * 5000]),
)
BODIES = st.one_of(
    st.binary(max_size=40),
    st.sampled_from(
        [
            b'{"model":"qwen3-32b","messages":[{"role":"user","content":"x"}],"max_tokens":2}',
            b'{"model":"qwen3-32b","prompt":"x","max_tokens":2,"stream":true}',
            b'{"model":"qwen3-32b","prompt":"x","n":1e999}',
            b"[" * 5000,
            b'{"model":' * 2000,
            b'{"model":"\\ud800"}',
            b"\xff\xfe",
        ]
    ),
)
_BITS = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
}
MAX_DEPTH = 6
_VARINT, _FIXED64, _BYTES, _GROUP, _END_GROUP, _FIXED32 = range(6)


def messages(kind: type[Message], seeds: list[bytes]) -> st.SearchStrategy[bytes]:
    """The bytes of a message, or of something like it: fields of other types, fields that are not there, a part, noise.

    Fields behind one of the `seeds` are merged into it, as two messages in a row are one to protobuf.
    """
    whole = fields_of(kind.DESCRIPTOR)
    changed = st.tuples(st.sampled_from(seeds or [b""]), st.one_of(st.just(b""), whole)).map(b"".join)
    return st.one_of(
        changed,
        changed,
        whole,
        whole,
        st.tuples(whole, raw_fields()).map(b"".join),
        st.tuples(whole, st.integers(0, 60)).map(lambda drawn: drawn[0][: -drawn[1] or None]),
        raw_fields(),
        st.integers(1, 3000).map(_deep),
        st.binary(max_size=60),
    )


@st.composite
def fields_of(draw: st.DrawFn, descriptor: Descriptor, depth: int = 0) -> bytes:
    """Some of the fields of a message, each with a value of its type."""
    out = b""
    some = st.lists(st.sampled_from(list(descriptor.fields)), max_size=4 if depth else 6) if descriptor.fields else st.just([])
    for field in draw(some):
        out += draw(_field(field, depth))
    return out


def _field(field: FieldDescriptor, depth: int) -> st.SearchStrategy[bytes]:
    number = field.number
    if field.cpp_type == FieldDescriptor.CPPTYPE_MESSAGE:
        inner = st.just(b"") if depth >= MAX_DEPTH else fields_of(field.message_type, depth + 1)
        return inner.map(lambda data: _delimited(number, data))
    if field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        values: st.SearchStrategy[Any] = BODIES if field.type == FieldDescriptor.TYPE_BYTES else TEXTS.map(str.encode)
        return values.map(lambda data: _delimited(number, data))
    if field.cpp_type in (FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT):
        width, size = (_FIXED64, 8) if field.cpp_type == FieldDescriptor.CPPTYPE_DOUBLE else (_FIXED32, 4)
        return st.binary(min_size=size, max_size=size).map(lambda data: _tag(number, width) + data)
    if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        return st.integers(0, 1).map(lambda value: _tag(number, _VARINT) + _varint(value))
    low, high = _BITS.get(field.cpp_type, (-2, 40))
    return st.one_of(st.integers(0, 3), st.integers(low, high)).map(lambda value: _tag(number, _VARINT) + _varint(value))


def raw_fields() -> st.SearchStrategy[bytes]:
    """Fields by number with a value of any wire type, also of those that are no more."""
    value = {
        _VARINT: st.integers(0, 2**64 - 1).map(_varint),
        _FIXED64: st.binary(min_size=8, max_size=8),
        _BYTES: st.binary(max_size=12).map(lambda data: _varint(len(data)) + data),
        _GROUP: st.just(b""),
        _END_GROUP: st.just(b""),
        _FIXED32: st.binary(min_size=4, max_size=4),
    }
    number = st.one_of(st.integers(0, 20), st.integers(0, 2**29 - 1))
    one = st.sampled_from(sorted(value)).flatmap(lambda kind: st.tuples(number.map(lambda n: _tag(n, kind)), value[kind]))
    return st.lists(one.map(b"".join), min_size=1, max_size=5).map(b"".join)


def _deep(levels: int) -> bytes:
    """Field 1 in field 1, so many times."""
    data = b""
    for _ in range(levels):
        data = _delimited(1, data)
    return data


def _delimited(number: int, data: bytes) -> bytes:
    return _tag(number, _BYTES) + _varint(len(data)) + data


def _tag(number: int, kind: int) -> bytes:
    return _varint(number << 3 | kind)


def _varint(value: int) -> bytes:
    value &= 2**64 - 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])
