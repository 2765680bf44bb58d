"""Checks that need more than one key: what refers to what, and what excludes what.

They read plain mappings and skip what has the wrong type, so that they can report beside a key's own faults.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from lexora_contract.priority import WORDS
from lexora_router.adapters import ADAPTERS, Adapter, family_of, types_where
from lexora_router.config.problems import nearest

Fault = tuple[tuple[str | int, ...], str]  # key path, what is wrong


def backend_faults(backend: Mapping[str, Any], *, discovers: bool = True) -> Iterator[Fault]:
    """Yield the faults inside one backend, with paths relative to it; `discovers`: there is such a key."""
    url, urls, discover = backend.get("url"), backend.get("urls"), backend.get("discover")
    if url is None and not urls and discover is None:
        yield (), f"needs url, or urls for several replicas{', or discover to find them' if discovers else ''}"
    if url is not None and urls:
        yield ("urls",), "give url or urls, not both"
    if discover is not None and (url is not None or urls):
        yield ("discover",), "give url, urls or discover, not two of them: discover finds the addresses"
    yield from _unnamed_certificates(backend, _map(discover))
    yield from _repeated(("urls",), urls)
    yield from _repeated(("fallback_backends",), backend.get("fallback_backends"))
    yield from _repeated(("models",), [_model_name(entry) for entry in _items(backend.get("models"))])
    if backend.get("client_key") is not None and backend.get("client_cert") is None:
        yield ("client_key",), "needs client_cert, the certificate that it belongs to"
    if backend.get("verify") is False and backend.get("ca_file") is not None:
        yield ("ca_file",), "has no effect with verify: false"
    family = family_of(backend)
    if family is not None:
        yield from _ability_faults(backend, family)
        yield from _section_faults(backend, family)


def _unnamed_certificates(backend: Mapping[str, Any], discover: Mapping[str, Any]) -> Iterator[Fault]:
    """Yield https to engines that are found by IP address, when nothing says what their certificates are for."""
    by_name = discover.get("dns") is not None and discover.get("port") is not None
    by_address = not by_name and discover.get("file") is None
    checked = backend.get("verify") is not False and backend.get("server_name") is None
    if discover.get("scheme") == "https" and by_address and checked:
        yield ("server_name",), "is needed by https here: engines are found by IP address, and certificates are for names"


def _section_faults(backend: Mapping[str, Any], family: type[Adapter]) -> Iterator[Fault]:
    """Yield a section that belongs to another family, and what a family's own lacks."""
    for name, other in ADAPTERS.items():
        given = other.section is not None and backend.get(other.section) is not None
        if given and other is not family:
            yield (str(other.section),), f"works only with type {name}"
        if given or other is family:
            yield from other.faults(backend)


def _ability_faults(backend: Mapping[str, Any], family: type[Adapter]) -> Iterator[Fault]:
    """Yield what engines of the family do not have."""
    if backend.get("scheduling_policy") == "priority" and not family.schedules_by_priority:
        yield ("scheduling_policy",), f"priority works only with type {types_where('schedules_by_priority')}"
    if backend.get("concurrency") != "auto":
        return
    if family.load_metrics is None:
        yield ("concurrency",), f"auto works only with type {types_where('load_metrics')}"
    elif "max_concurrency" in backend and backend["max_concurrency"] is None:
        yield ("concurrency",), "auto needs max_concurrency"
    yield from _order(backend, "min_concurrency", "max_concurrency")


def retry_faults(retry: Mapping[str, Any]) -> Iterator[Fault]:
    """Yield delays that are in the wrong order, with paths relative to retry."""
    yield from _order(retry, "base_delay", "max_delay")


def health_faults(health: Mapping[str, Any]) -> Iterator[Fault]:
    """Yield durations that are in the wrong order, with paths relative to health."""
    yield from _order(health, "open_time", "max_open_time")


def tenant_faults(tenant: Mapping[str, Any]) -> Iterator[Fault]:
    """Yield a priority of its own that the tenant may not ask for, with paths relative to the tenant."""
    numbers = {key: WORDS.get(value, value) if isinstance(value, str) else value for key, value in tenant.items()}
    yield from _order(numbers, "priority", "max_priority")


def tls_faults(tls: Mapping[str, Any]) -> Iterator[Fault]:
    """Yield keys of server.tls that have no effect without another one, with paths relative to it."""
    asked, grpc = tls.get("client_auth") or "none", tls.get("grpc_client_auth") or "none"
    asks = asked != "none" or grpc != "none"
    if tls.get("cert") is None:
        given = [name for name in ("key", "client_ca") if tls.get(name) is not None] + (["client_auth"] if asks else [])
        yield from (((name,), "needs server.tls.cert, the certificate that this server shows") for name in given)
    if asks and tls.get("client_ca") is None:
        name = "client_auth" if asked != "none" else "grpc_client_auth"
        yield (name,), "needs server.tls.client_ca, which signs the certificates of clients"
    if not asks and tls.get("client_ca") is not None:
        yield ("client_ca",), "has no effect: set server.tls.client_auth to optional or required"


def rate_limit_faults(rate_limit: Mapping[str, Any]) -> Iterator[Fault]:
    """Yield references of users to tiers that do not exist, with paths relative to rate_limit."""
    for name, user in _map(rate_limit.get("users")).items():
        yield from _unknown_tier(("users", name, "tier"), user, rate_limit)


def config_faults(config: Mapping[str, Any]) -> Iterator[Fault]:
    """Yield references of tenants to tiers that do not exist, and shared keys without a shared state."""
    if "shared" in str(_map(config.get("auth")).get("keys", "")) and not _map(config.get("state")).get("url"):
        yield ("auth", "keys"), "needs state.url: shared keys are in the state that replicas share"
    for name, tenant in _map(config.get("tenants")).items():
        yield from _unknown_tier(("tenants", name, "tier"), tenant, _map(config.get("rate_limit")))


def _unknown_tier(path: tuple[str | int, ...], holder: object, rate_limit: Mapping[str, Any]) -> Iterator[Fault]:
    yield from _unknown(path, _map(holder).get("tier"), _map(rate_limit.get("tiers")), "tier under rate_limit.tiers")


def _order(section: Mapping[str, Any], low: str, high: str) -> Iterator[Fault]:
    """Compare two numbers if both are there; what has the wrong type is reported elsewhere."""
    least, most = section.get(low), section.get(high)
    if isinstance(least, int | float) and isinstance(most, int | float) and least > most:
        yield (low,), f"must not be above {high}"


def routing_faults(routing: Mapping[str, Any]) -> Iterator[Fault]:
    """Yield references to backends that do not exist, and aliases of aliases, with paths relative to routing."""
    backends = _map(routing.get("backends"))
    yield from _unknown(("default_backend",), routing.get("default_backend"), backends)
    embedding = _map(_map(routing.get("classifier")).get("embedding"))
    yield from _unknown(("classifier", "embedding", "backend"), embedding.get("backend"), backends)
    for name, backend in backends.items():
        for index, other in enumerate(_items(_map(backend).get("fallback_backends"))):
            path = ("backends", name, "fallback_backends", index)
            yield from _unknown(path, other, backends)
            if other == name:
                yield path, "a backend cannot be its own fallback"
    yield from _alias_faults(_map(routing.get("aliases")))


def classifier_faults(classifier: Mapping[str, Any]) -> Iterator[Fault]:
    """Yield what an enabled classifier lacks, with paths relative to it."""
    for index, rule in enumerate(_items(classifier.get("rules"))):
        if isinstance(rule, Mapping) and not rule.get("patterns") and not rule.get("words"):
            yield ("rules", index), "needs words or patterns"
    kinds = classifier.get("type", "llm")
    kinds = [kinds] if isinstance(kinds, str) else _items(kinds)
    yield from _repeated(("type",), kinds)
    if classifier.get("enabled") is not True:
        return
    embedding = _map(classifier.get("embedding"))
    if "llm" in kinds and classifier.get("model") is None:
        yield ("model",), "is needed by type llm"
    if "rules" in kinds and not classifier.get("rules"):
        yield ("rules",), "is needed by type rules"
    if "embedding" in kinds and embedding.get("model") is None:
        yield ("embedding", "model"), "is needed by type embedding"
    if "embedding" in kinds and not embedding.get("examples"):
        yield ("embedding", "examples"), "is needed by type embedding"


def _alias_faults(aliases: Mapping[str, Any]) -> Iterator[Fault]:
    for alias, model in aliases.items():
        if model == alias:
            yield ("aliases", alias), "an alias cannot name itself"
        elif isinstance(model, str) and model in aliases:
            yield ("aliases", alias), "must name a model, not another alias"


def _unknown(
    path: tuple[str | int, ...], name: object, known: Mapping[str, Any], what: str = "backend under routing.backends"
) -> Iterator[Fault]:
    if isinstance(name, str) and name not in known:
        near = nearest(name, known)
        yield path, f"no such {what}{near and f', did you mean {near}?'}"


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
