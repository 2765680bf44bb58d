"""The body of a call whose caller may ask certain models only: it names its model once, whatever reads it.

Engines differ in which of several keys they take: the last one (Python, C++), the last one in any case (Go), or none (Rust).
The model that was allowed must be the one that is asked.
"""

from typing import Any

import msgspec
import re2

from lexora_router.errors import InvalidRequest
from lexora_router.payload.json_object import object_of
from lexora_router.payload.multipart import is_form, names_of, with_model_multipart

_KEY = "model"
# The key in any case, with any of its letters escaped. Values may look like it.
_WRITTEN = re2.compile(rb'(?i)"(?:model"|[delmo]{0,4}\\u00)')
_SMALL_BYTES = 16 * 1024  # of less, counting is cheaper
_encode = msgspec.json.Encoder().encode


def with_one_model(content_type: str, body: bytes, model: str, *, named: bool) -> bytes:
    """The body asking for `model`, and for no other one in any case of the key; the same bytes where it does only that.

    `named`: it is the one that the body names, which else names none. Raises InvalidRequest for a form that names several.
    """
    if is_form(content_type):
        return _form(content_type, body, model, named=named)
    if named and _is_once(body):
        return body
    fields: dict[str, Any] = {name: value for name, value in object_of(body).items() if name == _KEY or name.lower() != _KEY}
    fields[_KEY] = model
    return _encode(fields)


def _is_once(body: bytes) -> bool:
    """Whether nothing in the body but one key can be the model's."""
    if len(body) <= _SMALL_BYTES:
        return body.count(b'"model"') == 1 == body.lower().count(b'"model"') and b"\\u00" not in body
    first = _WRITTEN.search(body)
    return first is not None and first[0] == b'"model"' and _WRITTEN.search(body, first.end()) is None


def _form(content_type: str, body: bytes, model: str, *, named: bool) -> bytes:
    found = [(name, is_file) for name, is_file in names_of(content_type, body) if name.lower() == _KEY]
    if found not in ([], [(_KEY, False)]):
        raise InvalidRequest("The form names its model more than once, or not as plain text.", _KEY)
    return body if named else with_model_multipart(content_type, body, model)
