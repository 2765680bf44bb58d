"""A request's JSON object, and its fields taken out one by one with a clear complaint for each wrong type."""

from __future__ import annotations

import json
from typing import Any, NoReturn

from lexora_gateway.errors import Refused, invalid


class JsonFields:
    """The fields of a JSON object. Each is taken at most once; an explicit null counts as absent.

    Every method raises Refused (400) that names the field when its value has the wrong type or size.
    """

    def __init__(self, values: dict[str, Any], prefix: str = "") -> None:
        self._values = values
        self._prefix = prefix

    def refuse(self, name: str, needed: str) -> NoReturn:
        """Complain about the field `name`."""
        param = self._prefix + name
        raise Refused(invalid(f"{param} must be {needed}.", param))

    def take(self, name: str) -> Any:
        """The value as it is; None when absent."""
        return self._values.pop(name, None)

    def text(self, name: str) -> str | None:
        """A string."""
        value = self.take(name)
        if value is not None and not isinstance(value, str):
            self.refuse(name, "a string")
        return value

    def truth(self, name: str) -> bool | None:
        """A boolean."""
        value = self.take(name)
        if value is not None and not isinstance(value, bool):
            self.refuse(name, "true or false")
        return value

    def integer(self, name: str, bits: int = 32) -> int | None:
        """A whole number that fits into `bits` bits, signed."""
        value: int | None = self.take(name)
        if value is not None and not is_integer(value, bits):
            self.refuse(name, f"a whole number of {bits} bits")
        return value

    def real(self, name: str) -> float | None:
        """A number."""
        value = self.take(name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
            self.refuse(name, "a number")
        return value

    def items(self, name: str, needed: str = "a list") -> list[Any]:
        """A list; empty when absent."""
        value = self.take(name)
        if value is not None and not isinstance(value, list):
            self.refuse(name, needed)
        return value or []

    def within(self, name: str) -> str:
        """Prefix of the fields inside the field `name`."""
        return f"{self._prefix}{name}"

    def rest(self) -> dict[str, Any]:
        """The fields that were not taken."""
        return self._values


def is_integer(value: object, bits: int) -> bool:
    """Whether `value` is a whole number (no boolean) of at most `bits` bits, signed."""
    return isinstance(value, int) and not isinstance(value, bool) and -(1 << bits - 1) <= value < 1 << bits - 1


def parse_object(body: bytes) -> JsonFields:
    """The JSON object in `body`. Raises Refused (400) for anything else, 10,000-deep nesting included."""
    try:
        value = json.loads(body.decode("utf-8-sig"), parse_constant=_no_constant)
        if b"\\u" in body:
            # Half a surrogate pair passes as JSON but is no text; better found here than in the middle of a message.
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeDecodeError:
        raise Refused(invalid("The request body is not UTF-8.", "body")) from None
    except UnicodeEncodeError:
        raise Refused(invalid("The request body holds half a surrogate pair.", "body")) from None
    except RecursionError:
        raise Refused(invalid("The request body is nested too deeply.", "body")) from None
    except ValueError as error:
        raise Refused(invalid(f"The request body is not JSON: {error}.", "body")) from None
    if not isinstance(value, dict):
        raise Refused(invalid("The request body must be a JSON object.", "body"))
    return JsonFields(value)


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")
