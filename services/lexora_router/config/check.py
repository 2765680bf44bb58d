"""Checks that need more than one key: what refers to what, and what excludes what.

They read plain mappings and skip what has the wrong type, so that they can report beside a key's own faults.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from lexora_router.config.problems import nearest

Fault = tuple[tuple[str | int, ...], str]  # key path, what is wrong


def backend_faults(backend: Mapping[str, Any]) -> Iterator[Fault]:
    """Yield the faults inside one backend, with paths relative to it."""
    url, urls = backend.get("url"), backend.get("urls")
    if url is None and not urls:
        yield (), "needs url, or urls for several replicas"
    if url is not None and urls:
        yield ("urls",), "give url or urls, not both"
    yield from _repeated(("urls",), urls)
    yield from _repeated(("models",), [_model_name(entry) for entry in _items(backend.get("models"))])
    azure = backend.get("azure")
    if not isinstance(azure, Mapping):
        return
    if backend.get("type", "vllm") != "openai_compatible":
        yield ("azure",), "works only with type openai_compatible"
    if azure.get("api", "deployments") == "deployments" and azure.get("api_version") is None:
        yield ("azure",), 'needs api_version, for example "2024-10-21" (only api: v1 works without)'


def routing_faults(routing: Mapping[str, Any]) -> Iterator[Fault]:
    """Yield references to backends that do not exist, and aliases of aliases, with paths relative to routing."""
    backends = _map(routing.get("backends"))
    yield from _unknown(("default_backend",), routing.get("default_backend"), backends)
    for name, backend in backends.items():
        for index, other in enumerate(_items(_map(backend).get("fallback_backends"))):
            path = ("backends", name, "fallback_backends", index)
            yield from _unknown(path, other, backends)
            if other == name:
                yield path, "a backend cannot be its own fallback"
    yield from _alias_faults(_map(routing.get("aliases")))


def _alias_faults(aliases: Mapping[str, Any]) -> Iterator[Fault]:
    for alias, model in aliases.items():
        if model == alias:
            yield ("aliases", alias), "an alias cannot name itself"
        elif isinstance(model, str) and model in aliases:
            yield ("aliases", alias), "must name a model, not another alias"


def _unknown(path: tuple[str | int, ...], name: object, backends: Mapping[str, Any]) -> Iterator[Fault]:
    if isinstance(name, str) and name not in backends:
        near = nearest(name, backends)
        yield path, f"no such backend under routing.backends{near and f', did you mean {near}?'}"


def _repeated(path: tuple[str | int, ...], names: object) -> Iterator[Fault]:
    seen = set()
    for index, name in enumerate(_items(names)):
        if isinstance(name, str) and name in seen:
            yield (*path, index), "is listed twice"
        elif isinstance(name, str):
            seen.add(name)


def _model_name(entry: object) -> object:
    return entry.get("name") if isinstance(entry, Mapping) else entry


def _map(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _items(value: object) -> list[Any] | tuple[Any, ...]:
    return value if isinstance(value, list | tuple) else []
