"""Names of calls that come without one."""

from itertools import count
from secrets import token_hex

# Unique, not secret: one random half for the process, and the number of the call.
_PROCESS = token_hex(8)
_calls = count(1)


def new_request_id() -> str:
    """32 hexadecimal digits that no other call has."""
    return f"{_PROCESS}{next(_calls):016x}"
