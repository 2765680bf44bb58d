from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lexora_sim.text.detokenize import Detokenizer, StopScanner
from lexora_sim.text.language import Language
from lexora_sim.text.schema import instance
from lexora_sim.text.template import chat_ids
from lexora_sim.text.vocabulary import EOS, FIRST_GENERATED, VOCABULARY


def generate(prompt: list[int], count: int, seed: int = 0, natural: int = 256) -> list[int]:
    source = Language(prompt, seed, natural)
    ids: list[int] = []
    while len(ids) < count and (not ids or ids[-1] != EOS):
        ids.append(source.next(may_end=True))
    return ids


def decode(prompt: list[int], ids: list[int]) -> str:
    push = Detokenizer(prompt).push
    return "".join(push(token) for token in ids)


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_encoding_is_exact(text: str) -> None:
    assert VOCABULARY.decode(VOCABULARY.encode(text)) == text


def test_an_answer_never_tokenizes_to_its_own_ids() -> None:
    ids = generate(VOCABULARY.encode("hello"), 200)
    assert all(token >= FIRST_GENERATED for token in ids)
    assert not set(VOCABULARY.encode(VOCABULARY.decode(ids))) & set(ids)
    assert len(VOCABULARY) - FIRST_GENERATED >= 2000


def test_several_ids_share_their_text() -> None:
    texts = [VOCABULARY.data[token] for token in VOCABULARY.words]
    assert len(set(texts)) < len(texts) * 3 / 4


def test_prompt_and_seed_decide() -> None:
    prompt = VOCABULARY.encode("hello")
    assert generate(prompt, 50) == generate(prompt, 50)
    assert generate(prompt, 50, seed=1) != generate(prompt, 50, seed=2)
    assert generate(prompt, 50) != generate(VOCABULARY.encode("hallo"), 50)


def test_continues_exactly_from_every_cut() -> None:
    prompt = chat_ids([{"role": "user", "content": "a story, please"}])
    whole = generate(prompt, 400, seed=7, natural=64)
    assert whole[-1] == EOS
    assert 64 < len(whole) <= 64 + 16 + 3
    text = decode(prompt, whole)
    assert "\ufffd" not in text
    for cut in range(len(whole) - 1):
        rest = generate(prompt + whole[:cut], 400, seed=7, natural=64)
        assert rest == whole[cut:]
        assert decode(prompt, whole[:cut]) + decode(prompt + whole[:cut], rest) == text


def test_characters_come_whole() -> None:
    prompt = VOCABULARY.encode("x")
    ids = generate(prompt, 250)
    push = Detokenizer(prompt).push
    texts = [push(token) for token in ids]
    assert "" in texts
    assert any(ord(character) > 0xFFFF for text in texts for character in text)
    assert "".join(texts).encode() == b"".join(VOCABULARY.data[token] for token in ids).rstrip(b"\xf0\x9f\xe8\xe9\xe6\xe7")


def test_the_end_waits_for_an_open_character() -> None:
    head = VOCABULARY.split[0]
    source = Language([*VOCABULARY.encode("x"), head], 0, 1)
    assert source.next(may_end=True) == head + 1


def test_stop_string_over_pieces() -> None:
    scanner = StopScanner(["abc"], include=False)
    parts = [scanner.push(piece) for piece in ("xa", "b", "d", "ab", "cz")]
    assert "".join(text for text, _ in parts) == "xabd"
    assert parts[-1][1] == "abc"
    assert StopScanner(["abc"], include=True).push("1abc2") == ("1abc", "abc")


def test_what_is_held_back_is_flushed() -> None:
    scanner = StopScanner(["abc"], include=False)
    assert scanner.push("xab") == ("x", None)
    assert scanner.flush() == "ab"


@pytest.mark.parametrize(
    ("schema", "check"),
    [
        ({"type": "integer", "minimum": 5, "maximum": 6}, lambda v: v in (5, 6)),
        ({"type": "integer", "maximum": -3}, lambda v: v <= -3),
        ({"type": "integer", "exclusiveMinimum": 2, "multipleOf": 5}, lambda v: v > 2 and v % 5 == 0),
        ({"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1}, lambda v: 0 < v < 1),
        ({"type": "string", "minLength": 30, "maxLength": 40}, lambda v: 30 <= len(v) <= 40),
        ({"enum": ["a", "b"]}, lambda v: v in ("a", "b")),
        ({"const": None}, lambda v: v is None),
        ({"anyOf": [{"type": "null"}, {"type": "boolean"}]}, lambda v: v is None or isinstance(v, bool)),
        ({"type": ["null", "string"]}, lambda v: isinstance(v, str)),
        ({"type": "array", "items": {"type": "integer"}, "minItems": 3}, lambda v: len(v) == 3),
        ({"allOf": [{"required": ["a"]}, {"properties": {"a": {"const": 1}}}]}, lambda v: v == {"a": 1}),
        ({"type": "object", "required": ["x"]}, lambda v: isinstance(v["x"], str)),
    ],
)
def test_schema_instances(schema: dict[str, object], check: object) -> None:
    for seed in range(8):
        assert check(instance(schema, seed))  # type: ignore[operator]  # a lambda


def test_recursive_schema_ends() -> None:
    node = {"type": "object", "properties": {"next": {"$ref": "#/$defs/node"}, "v": {"type": "integer"}}, "required": ["v"]}
    value = instance({"$ref": "#/$defs/node", "$defs": {"node": node}})
    assert "v" in value
    assert len(json.dumps(value)) < 5000


def test_continued_message_stays_open() -> None:
    messages = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "once upon"}]
    ids = chat_ids(messages, add_generation_prompt=False, continue_final_message=True)
    assert VOCABULARY.decode(ids).endswith("once upon")
    assert chat_ids([{"role": "user", "content": None}])
