"""Errors inside a 200: engines answer so when the status was sent before the failure, or out of habit."""

import re
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

from lexora_router.engines.request_fault import blames_request
from lexora_router.errors import UpstreamBroken, UpstreamFailure, UpstreamRefused
from lexora_router.payload.error_bodies import readable
from lexora_router.payload.lenient_json import lenient

T = TypeVar("T")
ERROR = "error"  # what `object` or `type` says of a body that is nothing but an error
MAX_WORD_CHARS = 64
# What `code`, `type` and `status` say of an error, in small letters, without what is no letter and without a last "error":
# the words of OpenAI, Anthropic, Google, vLLM and TGI.
_STATUS_OF_WORD = {
    "badrequest": 400,
    "invalidrequest": 400,
    "invalidargument": 400,
    "contextlengthexceeded": 400,
    "authentication": 401,
    "invalidapikey": 401,
    "unauthenticated": 401,
    "unauthorized": 401,
    "forbidden": 403,
    "permission": 403,
    "permissiondenied": 403,
    "modelnotfound": 404,
    "notfound": 404,
    "requesttoolarge": 413,
    "unprocessableentity": 422,
    "validation": 422,
    "insufficientquota": 429,
    "ratelimit": 429,
    "ratelimitexceeded": 429,
    "resourceexhausted": 429,
    "toomanyrequests": 429,
    "api": 500,
    "generation": 500,
    "internal": 500,
    "internalserver": 500,
    "server": 500,
    "badgateway": 502,
    "serviceunavailable": 503,
    "unavailable": 503,
    "deadlineexceeded": 504,
    "timeout": 504,
    "overloaded": 529,
}
_NO_LETTER = re.compile(r"[^a-z]")


class _Error(msgspec.Struct, gc=False):
    code: Any = None
    type: Any = None
    status: Any = None


class _Body(msgspec.Struct, gc=False):
    error: msgspec.Raw = msgspec.Raw()  # empty when absent: a union with None would refuse every value
    error_type: Any = None
    object: Any = None
    type: Any = None
    choices: msgspec.Raw = msgspec.Raw()
    content: msgspec.Raw = msgspec.Raw()
    data: msgspec.Raw = msgspec.Raw()
    output: msgspec.Raw = msgspec.Raw()
    results: msgspec.Raw = msgspec.Raw()

    @property
    def error_text(self) -> bytes:
        """The JSON of the error when it is in a field of its own."""
        error = bytes(self.error)
        return b"" if error == b"null" else error

    @property
    def answers(self) -> bool:
        """Whether it is an answer of one of the APIs, which may have an error inside."""
        fields = (self.choices, self.content, self.data, self.output, self.results)
        return any(bytes(field) not in (b"", b"null", b"[]") for field in fields)


_decode_body = lenient(msgspec.json.Decoder(_Body).decode)
_decode_error = lenient(msgspec.json.Decoder(_Error).decode)
_decode_words = msgspec.json.Decoder(str).decode  # {"error": "Unauthorized"}


def is_error(body: bytes) -> bool:
    """Whether the JSON body of a 200 is an error, see `failure_of`, and no answer, nor JSON of another shape.

    A response object that has failed is an answer: its API says so in this way.
    """
    found = _decoded(_decode_body, body, _Body())
    if found.answers or found.object == "response":
        return False
    return bool(found.error_text) or ERROR in (found.object, found.type)


def failure_of(payload: bytes) -> UpstreamFailure:
    """What the JSON of an error means: where it names a status, the same as an answer of that status."""
    body = _decoded(_decode_body, payload, _Body())
    words = _decoded(_decode_words, body.error_text, "")
    error = _Error(type=words) if words else _decoded(_decode_error, body.error_text or payload, _Error())
    status = _status(error.code) or _status(error.type) or _status(error.status) or _status(body.error_type)
    if status:
        blames = status >= 500 and blames_request(payload)
        return UpstreamRefused(status, "application/json", payload, blames_request=blames)
    return UpstreamBroken(readable(payload), payload)


def in_mid_answer(failure: UpstreamFailure) -> UpstreamFailure:
    """The same for a client that has seen the answer's beginning, so that a status can no longer be sent."""
    if not isinstance(failure, UpstreamRefused):
        return failure
    refused = failure.http_status < 500
    message = "The engine refused the call in mid-answer." if refused else readable(failure.body)
    return UpstreamBroken(message, failure.body)


def _decoded(decode: Callable[[bytes], T], text: bytes, default: T) -> T:
    try:
        return decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return default


def _status(word: Any) -> int:
    """The HTTP status that a code or a name stands for, 0 when it stands for none."""
    if isinstance(word, str):
        letters = _NO_LETTER.sub("", word[:MAX_WORD_CHARS].lower())
        word = int(word) if word.isdecimal() and len(word) == 3 else _STATUS_OF_WORD.get(letters.removesuffix("error"), 0)
    return word if isinstance(word, int) and 400 <= word <= 599 else 0
