"""Lists in pages: a token names the last entry that was shown, so the list may change between two.

https://google.aip.dev/158
"""

import base64
import binascii
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from lexora_router.errors import InvalidRequest

MAX_TOKEN_LENGTH = 4096

Entry = TypeVar("Entry")
Key = tuple[str, ...]


def page_size(asked: int, *, default: int, most: int) -> int:
    """How many entries a page has; raises InvalidRequest for a negative number. More than `most` are not an error."""
    if asked < 0:
        raise InvalidRequest("page_size must not be negative.", "page_size")
    return min(asked or default, most)


def page(entries: Iterable[Entry], size: int, key: Callable[[Entry], Key]) -> tuple[Sequence[Entry], str]:
    """The first `size` entries, and the token that asks for those behind them; empty when there are none."""
    found: list[Entry] = []
    for entry in entries:
        if len(found) == size:
            return found, _token(key(found[-1]))
        found.append(entry)
    return found, ""


def after(token: str) -> Key | None:
    """The key of the last entry that was shown, None for the first page. Raises InvalidRequest for what is no token of ours."""
    if not token:
        return None
    try:
        if len(token) <= MAX_TOKEN_LENGTH:
            return tuple(base64.urlsafe_b64decode(token).decode().split("\0"))
    except (binascii.Error, ValueError):
        pass
    raise InvalidRequest("page_token must be the next_page_token of an answer, as it is.", "page_token")


def _token(key: Key) -> str:
    return base64.urlsafe_b64encode("\0".join(key).encode()).decode()
