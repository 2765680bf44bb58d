"""Whether an engine's error body says that the request is at fault, whatever its status.

vLLM and OpenAI name the fault in `type` and, as an HTTP status or a word, in `code`; some versions and proxies send such a body
under a status of 500. Older vLLM has these fields at the top, all others within `error`.
"""

import msgspec

# Without those that another moment or another engine may answer otherwise.
_STATUSES = frozenset(map(str, range(400, 500))) - {"408", "425", "429"}
_TYPES = frozenset(
    {
        "badrequesterror",
        "exceed_context_size_error",
        "invalid_request_error",
        "notfounderror",
        "unprocessableentityerror",
        "validationerror",
        "valueerror",
        "vllmvalidationerror",
    }
)
_CODES = frozenset({"content_policy_violation", "context_length_exceeded", "invalid_prompt", "model_not_found"})


class _Error(msgspec.Struct):
    type: object = None
    code: object = None


class _Body(_Error):
    error: object = None


def blames_request(body: bytes) -> bool:
    """Whether a JSON error body names a fault of the request; False for anything that is no such body."""
    try:
        found = msgspec.json.decode(body, type=_Body)
        error = msgspec.convert(found.error, _Error) if isinstance(found.error, dict) else found
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    code = str(error.code)
    return code in _CODES or str(error.type).lower() in _TYPES or code in _STATUSES
