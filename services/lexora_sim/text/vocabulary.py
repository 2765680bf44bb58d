"""The vocabulary: two ranges of ids with the same kind of text.

Text is encoded to canonical ids only (below FIRST_GENERATED); the language answers with generated ids only. Many generated
ids share one text, so an answer never re-tokenizes to the ids it was made of, and the generated tail of a sequence can be
distinguished from its prompt by the ids.
"""

from __future__ import annotations

import re
import string
from functools import lru_cache

from lexora_sim.text.words import EMOJI, ENGLISH, JAPANESE, KANJI

UNKNOWN, IM_START, EOS, IMAGE, AUDIO = 0, 1, 2, 3, 4
FIRST_BYTE = 16  # 16..271: the 256 bytes
FIRST_CANONICAL = FIRST_BYTE + 256
FIRST_GENERATED = 4096

_PIECES = re.compile(r" ?[A-Za-z]+| ?[^\sA-Za-z]|\s")


class Vocabulary:
    """Token id -> bytes, and text -> canonical ids.

    `follow` maps the ids that hold the first bytes of a character to the id that must come next.
    """

    def __init__(self) -> None:
        self.data: list[bytes] = [b""] * FIRST_GENERATED
        self.follow: dict[int, int] = {}
        self._canonical: dict[str, int] = {}
        for byte in range(256):
            self.data[FIRST_BYTE + byte] = bytes([byte])
        self._fill_canonical()
        self.words = self._append([form for word in ENGLISH for form in _forms(word)])
        self.japanese = self._append([word for word in JAPANESE for _ in range(2)])
        self.split = [self._append_split(character) for character in KANJI + EMOJI]
        self.text: list[str | None] = [_complete(data) for data in self.data]

    def __len__(self) -> int:
        return len(self.data)

    def encode(self, text: str) -> list[int]:
        """Return the canonical ids of `text`; `decode` gives the text back exactly."""
        ids: list[int] = []
        for piece in _PIECES.findall(text):
            known = self._canonical.get(piece)
            if known is not None:
                ids.append(known)
            else:
                ids.extend(self._encode_piece(piece))
        return ids

    def decode(self, ids: list[int]) -> str:
        """Return the text of `ids`; special tokens have none, broken characters become U+FFFD."""
        return b"".join([self.data[i] for i in ids]).decode("utf-8", "replace")

    @lru_cache(maxsize=16_384)  # noqa: B019 - one vocabulary lives as long as the process
    def _encode_piece(self, piece: str) -> tuple[int, ...]:
        ids: list[int] = []
        position = 0
        while position < len(piece):
            for width in (3, 2):
                known = self._canonical.get(piece[position : position + width])
                if known is not None:
                    ids.append(known)
                    position += width
                    break
            else:
                ids.extend(FIRST_BYTE + byte for byte in piece[position].encode("utf-8", "replace"))
                position += 1
        return tuple(ids)

    def _fill_canonical(self) -> None:
        letters = string.ascii_lowercase
        pairs = [a + b for a in letters for b in letters]
        texts = [*pairs, *(" " + pair for pair in pairs), *ENGLISH, *(" " + word for word in ENGLISH), *JAPANESE]
        for number, text in enumerate(dict.fromkeys(texts)):
            self.data[FIRST_CANONICAL + number] = text.encode()
            self._canonical[text] = FIRST_CANONICAL + number
        for character in string.printable:
            self._canonical.setdefault(character, FIRST_BYTE + ord(character))

    def _append(self, texts: list[str]) -> range:
        first = len(self.data)
        self.data.extend(text.encode() for text in texts)
        return range(first, len(self.data))

    def _append_split(self, character: str) -> int:
        """Add the tokens of one character, two bytes first and then byte by byte; return the first id."""
        raw = character.encode()
        parts = [raw[:2], *(raw[i : i + 1] for i in range(2, len(raw)))]
        first = len(self.data)
        self.data.extend(parts)
        for offset in range(len(parts) - 1):
            self.follow[first + offset] = first + offset + 1
        return first


def _forms(word: str) -> list[str]:
    spaced = " " + word
    return [spaced, spaced, spaced, spaced, spaced + ",", spaced + ".", " " + word.capitalize(), spaced + "s", word]


def _complete(data: bytes) -> str | None:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return None


VOCABULARY = Vocabulary()
