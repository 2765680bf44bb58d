"""Names of calls: which are taken, and new ones for calls that come without."""

import os
from secrets import token_hex

from lexora_contract.access import KEY_PREFIX
from lexora_contract.limits import MAX_REQUEST_ID

# 128 random bits: engines make the ids of stored responses from it, and such an id is enough to read the response.
_DIGITS = 32
# So many are made at a time: for each one a system call would be most of its cost.
_BATCH = 256

_left: list[str] = []
os.register_at_fork(after_in_child=_left.clear)  # or both processes would give the same


def is_request_id(text: str) -> bool:
    """Whether this can be the identity of a call: 1 to 128 visible ASCII characters, and no key in it.

    A key would get into answers and logs, and to the engine.
    """
    visible = text.isascii() and text.isprintable() and " " not in text
    return 0 < len(text) <= MAX_REQUEST_ID and visible and KEY_PREFIX not in text


def new_request_id() -> str:
    """32 hexadecimal digits that no other call has, and that do not follow from those of other calls."""
    try:
        return _left.pop()
    except IndexError:
        digits = token_hex(_BATCH * _DIGITS // 2)
        _left.extend(digits[at : at + _DIGITS] for at in range(_DIGITS, len(digits), _DIGITS))
        return digits[:_DIGITS]
