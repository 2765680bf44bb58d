"""What an operator should know about a configuration that can be used."""

from collections.abc import Iterator, Mapping

from lexora_router.config.access_warnings import access_warnings
from lexora_router.config.env import PREFIX
from lexora_router.config.models import Config
from lexora_router.config.openings import open_hosts
from lexora_router.config.positions import Tree
from lexora_router.config.problems import Path, Problem
from lexora_router.config.state import state_warnings
from lexora_router.config.telemetry import telemetry_warnings
from lexora_router.config.tls_check import certificate_warnings, engine_tls_warnings, tls_warnings


def warnings(config: Config, tree: Tree, environ: Mapping[str, str]) -> Iterator[str]:
    """Yield one line for each thing that is allowed and probably not meant."""
    yield from _unset_keys(config, tree, environ)
    yield from _access(config, tree, environ)
    yield from _models_twice(config, tree)
    yield from _useless_fallbacks(config, tree)
    yield from _unused_vllm(config, tree)
    yield from _replaced_addresses(tree)
    yield from telemetry_warnings(config.telemetry, environ)
    yield from _no_credentials(config, tree)
    yield from tls_warnings(config, tree)
    yield from engine_tls_warnings(config, tree)
    yield from certificate_warnings(config, tree)
    yield from (_line(tree, path, message) for path, message in access_warnings(config))
    yield from (_line(tree, path, message) for path, message in state_warnings(config.state, environ))
    yield from _classifier(config, tree)


def _unset_keys(config: Config, tree: Tree, environ: Mapping[str, str]) -> Iterator[str]:
    for name, backend in config.backends().items():
        path: Path = ("vllm",) if config.single_backend else ("routing", "backends", name)
        if backend.api_key_env and not environ.get(backend.api_key_env, "").strip():
            instead = "api_key is used" if backend.api_key else "calls go without a key"
            yield _line(tree, (*path, "api_key_env"), f"{backend.api_key_env} is not set in the environment, {instead}")


def _access(config: Config, tree: Tree, environ: Mapping[str, str]) -> Iterator[str]:
    if config.auth.enabled and not config.rate_limit.enabled:
        yield _line(tree, ("rate_limit", "enabled"), "false: the limits of keys and tokens do not hold either")
    named = config.auth.cache_salt_secret_env
    if named and not environ.get(named, "").strip():
        instead = "cache_salt_secret is used" if config.auth.cache_salt_secret else "each process has a secret of its own"
        yield _line(tree, ("auth", "cache_salt_secret_env"), f"{named} is not set in the environment, {instead}")


def _models_twice(config: Config, tree: Tree) -> Iterator[str]:
    owners: dict[str, str] = {}
    for backend_name, backend in config.backends().items():
        for index, model in enumerate(backend.models):
            first = owners.setdefault(model.name, backend_name)
            path: Path = ("routing", "backends", backend_name, "models", index)
            if first != backend_name:
                yield _line(tree, path, f"{model.name} is also a model of {first}, which gets its calls")
    for alias in config.routing.aliases:
        if alias in owners:
            path = ("routing", "aliases", alias)
            yield _line(tree, path, f"has no effect: {owners[alias]} has a model of this name")


def _useless_fallbacks(config: Config, tree: Tree) -> Iterator[str]:
    backends = config.backends()
    for name, backend in backends.items():
        for index, other in enumerate(backend.fallback_backends):
            target = backends[other]
            served = {model.name for model in target.models} | {*target.model_mapping, *target.fallback_models}
            # A target without `models` serves what it lists, which is not known here.
            if backend.models and target.models and served.isdisjoint(model.name for model in backend.models):
                message = f"{other} serves none of the models of {name}: give {other} fallback_models or model_mapping"
                yield _line(tree, ("routing", "backends", name, "fallback_backends", index), message)


def _unused_vllm(config: Config, tree: Tree) -> Iterator[str]:
    for path, where in tree.origins.items():
        if path[:1] == ("vllm",) and where.variable and not config.single_backend:
            yield _line(tree, path, "has no effect: routing.backends is in force")


def _replaced_addresses(tree: Tree) -> Iterator[str]:
    """The unit file and images set LEXORA_SERVER__HOST: a narrower address in the file would seem to be in force."""
    for path in (("server", "host"), ("server", "grpc_host")):
        if path in tree.replaced and tree.origins[path].source.startswith(PREFIX):
            yield _line(tree, path, f"wins over {tree.replaced[path]}")


def _no_credentials(config: Config, tree: Tree) -> Iterator[str]:
    if not config.auth.enabled:
        for path, host in open_hosts(config)[:1]:
            yield _line(tree, path, f"any machine that reaches {host} may call and administer: auth.mode is off")


def _classifier(config: Config, tree: Tree) -> Iterator[str]:
    classifier, path = config.routing.classifier, ("routing", "classifier")
    if classifier.backend is not None and classifier.backend not in config.routing.backends:
        yield _line(tree, (*path, "backend"), f"there is no backend {classifier.backend} under routing.backends")
    if not classifier.enabled:
        return
    if config.routing.default_model_for_unknown_task is None:
        missing = "needs routing.default_model_for_unknown_task: without it every question is answered 503"
        yield _line(tree, (*path, "enabled"), missing)
    known = {name for backend in config.backends().values() for model in backend.models for name in model.capabilities}
    used: list[tuple[Path, str]] = []
    if "rules" in classifier.type:
        used += [((*path, "rules", index, "capability"), rule.capability) for index, rule in enumerate(classifier.rules)]
    if "embedding" in classifier.type:
        examples = enumerate(classifier.embedding.examples)
        used += [((*path, "embedding", "examples", index, "capability"), example.capability) for index, example in examples]
    for where, name in used:
        if name not in known:
            yield _line(tree, where, f"no model has the capability {name}: this has no effect")


def _line(tree: Tree, path: Path, message: str) -> str:
    return str(Problem(tree.where(path), path, message))
