"""W3C trace context: which trace a call is part of. https://www.w3.org/TR/trace-context/"""

import re

from lexora_contract.answer import Headers

# A later version may have more behind the flags; the first one may not.
_TRACEPARENT = re.compile(r"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-.*)?")


def trace_id_of(trace: Headers) -> str:
    """The trace's id for logs and errors, 32 hexadecimal digits; empty without one."""
    for name, value in trace:
        if name == "traceparent":
            found = _TRACEPARENT.fullmatch(value)
            return "" if found is None or (found[1] == "00" and found[3]) else found[2]
    return ""
