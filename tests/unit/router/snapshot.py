"""Everything that an object holds, taken down so that two moments can be compared."""

import asyncio
from collections import OrderedDict, deque
from collections.abc import Mapping
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any
from weakref import ref

_LEAVES = (int, float, str, bytes, bool, type(None), type)
_OPAQUE = (FunctionType, BuiltinFunctionType, MethodType, ModuleType, ref, asyncio.Future, asyncio.TimerHandle, asyncio.Event)


def snapshot(thing: Any) -> Any:
    """Nested tuples: contents and order of containers, fields of objects; what was met before is told by its number."""
    return _taken(thing, {})


def _taken(thing: Any, met: dict[int, int]) -> Any:
    if isinstance(thing, _LEAVES):
        return thing
    if isinstance(thing, _OPAQUE):
        return id(thing)
    if id(thing) in met:
        return f"#{met[id(thing)]}"
    met[id(thing)] = len(met)
    if isinstance(thing, Mapping):
        thing = list(thing.items())
    if isinstance(thing, set | frozenset):
        thing = sorted(thing, key=id)
    if isinstance(thing, list | tuple | deque):
        return type(thing).__name__, tuple(_taken(each, met) for each in thing)
    return type(thing).__name__, tuple((name, _taken(value, met)) for name, value in _fields(thing))


def _fields(thing: Any) -> list[tuple[str, Any]]:
    names = OrderedDict.fromkeys(getattr(thing, "__dict__", {}))
    for kind in type(thing).__mro__:
        slots = getattr(kind, "__slots__", ())
        names.update(OrderedDict.fromkeys((slots,) if isinstance(slots, str) else slots))
    return [(name, getattr(thing, name)) for name in names if not name.startswith("__") and hasattr(thing, name)]
