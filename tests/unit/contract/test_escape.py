import json
import unicodedata

import pytest

from lexora_contract.escape import escaped, escaped_json, escaped_lines

UNSAFE = [
    chr(code)
    for code in (*range(0x20), *range(0x7F, 0xA0), 0x61C, 0x200E, 0x200F, *range(0x2028, 0x202F), *range(0x2066, 0x206A))
]


def test_what_a_terminal_would_obey_is_shown_and_everything_else_stays() -> None:
    text = "a\x1b[2Jb\nc\u202ed\x9be\ud800"
    assert escaped(text) == r"a\x1b[2Jb\nc\u202ed\x9be\ud800"
    assert escaped_lines(f"one\r\n\ttwo\r{text}") == "one\n\ttwo\\r" + r"a\x1b[2Jb" "\n" r"c\u202ed\x9be\ud800"
    for plain in ("qwen3-32b", "模型 日本語", "नमस्ते", "👩\u200d🔬", "می\u200cخواهم", "C:\\new", ""):
        assert (escaped(plain), escaped_lines(plain), escaped_json(plain)) == (plain, plain, plain)


@pytest.mark.parametrize("sign", UNSAFE, ids=lambda sign: f"U+{ord(sign):04X}")
def test_no_such_sign_is_left_anywhere(sign: str) -> None:
    seen = {escaped(sign), escaped_lines(sign), escaped_json(json.dumps(sign, ensure_ascii=False))}
    allowed = {sign} if sign in "\t\n" else set()
    for shown in seen - allowed:
        assert not any(unicodedata.category(char) in ("Cc", "Cf", "Zl", "Zp") for char in shown)
    assert json.loads(escaped_json(json.dumps({"x": sign}, ensure_ascii=False))) == {"x": sign}
