import time

import msgspec
import pytest

from lexora_router.payload.lenient_json import is_json, lenient

read = lenient(msgspec.json.Decoder().decode)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (b'{"a":NaN,"b":[-Infinity,Infinity,1]}', {"a": None, "b": [None, None, 1]}),
        (b'{"NaN":"NaN","x":"\\" Infinity","y":NaN}', {"NaN": "NaN", "x": '" Infinity', "y": None}),
        (b'\xef\xbb\xbf{"a":1}', {"a": 1}),
        (b'\n\n {"a":1}\n', {"a": 1}),
    ],
)
def test_what_some_engines_write_is_read(text: bytes, value: object) -> None:
    assert read(text) == value
    assert is_json(text)


@pytest.mark.parametrize("text", [b"", b"NaNo", b'{"a":NaN', b'{"a":nan}', b"<html>Infinity</html>", b"\xff", b"[" * 100_000])
def test_what_is_no_json_stays_none(text: bytes) -> None:
    with pytest.raises((msgspec.DecodeError, RecursionError)):
        read(text)
    assert not is_json(text)


def test_a_text_of_quotes_takes_no_longer_than_its_length() -> None:
    """A search that began again at each quote would take hours."""
    began = time.process_time()
    assert not is_json(b'{"a":NaN,"b":"' + b'\\"' * 1_000_000)
    assert not is_json(b"NaN" + b'"' * 1_000_001)
    assert time.process_time() - began < 20
