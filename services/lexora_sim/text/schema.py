"""A small, deterministic instance for a JSON schema."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lexora_sim.text.language import mix
from lexora_sim.text.words import ENGLISH

_MAX_DEPTH = 24
_MAX_NODES = 4096
_FORMATS = {
    "date": "2026-01-02",
    "date-time": "2026-01-02T03:04:05Z",
    "time": "03:04:05Z",
    "email": "sim@example.com",
    "uri": "https://example.com/",
    "uuid": "00000000-0000-4000-8000-000000000000",
    "ipv4": "192.0.2.1",
}


def instance(schema: Any, seed: int = 0) -> Any:
    """Return a value valid under `schema` (objects, arrays, scalars, enum, const, anyOf, oneOf, allOf, local $ref).

    `pattern` is not looked at. Recursion stops at a depth of 24 and after 4096 values; optional parts are left out
    long before. Raises TypeError, ValueError, AttributeError, ZeroDivisionError or OverflowError for what is no schema.
    """
    return _Maker(schema, seed).make(schema, 0)


class _Maker:
    def __init__(self, root: Any, seed: int) -> None:
        self._root = root
        self._state = mix(seed & 0xFFFFFFFF)
        self._nodes = 0

    def make(self, schema: Any, depth: int) -> Any:
        self._nodes += 1
        if not isinstance(schema, dict) or depth > _MAX_DEPTH or self._nodes > _MAX_NODES:
            return None
        if "const" in schema:
            return schema["const"]
        if schema.get("enum"):
            return schema["enum"][self._random(len(schema["enum"]))]
        inner = self._unwrap(schema)
        return self._typed(schema, depth) if inner is None else self.make(inner, depth + 1)

    def _unwrap(self, schema: dict[str, Any]) -> Any:
        """Return the schema that a reference or combination stands for, None when it is neither."""
        if "$ref" in schema:
            return self._resolve(str(schema["$ref"]))
        for union in ("anyOf", "oneOf"):
            if schema.get(union):
                return {**_without(schema, union), **_simplest(schema[union])}
        return _merge(schema) if schema.get("allOf") else None

    def _typed(self, schema: dict[str, Any], depth: int) -> Any:
        kind = schema.get("type")
        if isinstance(kind, list):
            kind = next((name for name in kind if name != "null"), "null")
        kind = kind or ("object" if "properties" in schema else "array" if "items" in schema else "string")
        makers: dict[str, Callable[[], Any]] = {
            "object": lambda: self._object(schema, depth),
            "array": lambda: self._array(schema, depth),
            "integer": lambda: self._number(schema, whole=True),
            "number": lambda: self._number(schema, whole=False),
            "boolean": lambda: bool(self._random(2)),
            "null": lambda: None,
        }
        return makers.get(kind, lambda: self._string(schema))()

    def _object(self, schema: dict[str, Any], depth: int) -> dict[str, Any]:
        properties = schema.get("properties") or {}
        required = schema.get("required") or []
        deep = depth > _MAX_DEPTH // 3
        names = [name for name in properties if name in required or not deep]
        names += [name for name in required if name not in properties]
        return {name: self.make(properties.get(name, {"type": "string"}), depth + 1) for name in names}

    def _array(self, schema: dict[str, Any], depth: int) -> list[Any]:
        least = int(schema.get("minItems", 0 if depth > _MAX_DEPTH // 3 else 1))
        prefix = [self.make(item, depth + 1) for item in schema.get("prefixItems") or []]
        items = schema.get("items", {"type": "string"})
        count = max(0, min(least, 64, int(schema.get("maxItems", 64))) - len(prefix))
        return prefix + [self.make(items, depth + 1) for _ in range(count)]

    def _number(self, schema: dict[str, Any], *, whole: bool) -> int | float:
        step = schema.get("multipleOf") or 1
        low = schema.get("minimum")
        if low is None and "exclusiveMinimum" in schema:
            low = schema["exclusiveMinimum"] + (step if whole else step / 2)
        high = schema.get("maximum")
        if high is None and "exclusiveMaximum" in schema:
            high = schema["exclusiveMaximum"] - (step if whole else step / 2)
        if low is None:
            low = min(0, high - 9) if high is not None else 0
        value = low + self._random(10) * (1 if whole else 0.5)
        if high is not None and value > high:
            value = low if whole else (low + high) / 2
        if step != 1:
            value = -(-low // step) * step
        return int(value) if whole else float(value)

    def _string(self, schema: dict[str, Any]) -> str:
        known = _FORMATS.get(str(schema.get("format")))
        if known is not None:
            return known
        text = f"{self._word()} {self._word()}"
        while len(text) < min(int(schema.get("minLength", 0)), 4096):
            text += f" {self._word()}"
        return text[: int(schema["maxLength"])] if "maxLength" in schema else text

    def _word(self) -> str:
        return ENGLISH[self._random(len(ENGLISH))]

    def _random(self, count: int) -> int:
        self._state = mix((self._state + 0x9E3779B9) & 0xFFFFFFFF)
        return self._state % count

    def _resolve(self, reference: str) -> Any:
        node = self._root
        for part in reference.lstrip("#").strip("/").split("/"):
            key = part.replace("~1", "/").replace("~0", "~")
            node = node.get(key) if isinstance(node, dict) and key else node
        return node


def _without(schema: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in schema.items() if name != key}


def _simplest(options: list[Any]) -> dict[str, Any]:
    """Take the first option that refers to nothing, so that recursive unions end."""
    plain = [option for option in options if isinstance(option, dict)]
    return next((option for option in plain if "$ref" not in option), plain[0] if plain else {})


def _merge(schema: dict[str, Any]) -> dict[str, Any]:
    merged = _without(schema, "allOf")
    for part in schema["allOf"]:
        if not isinstance(part, dict):
            continue
        properties = {**merged.get("properties", {}), **part.get("properties", {})}
        required = [*merged.get("required", []), *part.get("required", [])]
        merged = {**merged, **part}
        if properties:
            merged["properties"] = properties
        if required:
            merged["required"] = required
    return merged
