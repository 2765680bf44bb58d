"""From model names to targets: configured models first, then aliases' models, what backends list, and the default backend."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from lexora_router.call import Target
from lexora_router.choosing.decide.ranking import GENERAL, Offer
from lexora_router.config import Config, ModelEntry
from lexora_router.errors import InvalidRequest, ModelNotFound
from lexora_router.fleet.backend import Backend
from lexora_router.fleet.catalogue import Catalogue

# An unknown model makes the router ask the backends again, but no more often than this, in seconds.
DISCOVERY_INTERVAL = 2.0


@dataclass(frozen=True, slots=True)
class RoutableModel:
    """A model that can be asked. `entry` is its backend's own JSON, empty when the backend does not list it."""

    id: str
    backend: Backend
    configured: ModelEntry | None
    max_model_len: int
    entry: bytes
    alias_of: str = ""


class RouteRule(StrEnum):
    """What leads a model's name to a backend."""

    CONFIGURED = "configured"
    ALIAS = "alias"
    LISTED = "listed"
    DEFAULT_BACKEND = "default_backend"
    DEFAULT_MODEL = "default_model"
    AUTO = "auto"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Ruling:
    """How a name leads to its targets: `rule` decided, and after an alias or a default model `by` did for the name `model`."""

    rule: RouteRule
    model: str
    by: RouteRule
    targets: tuple[Target, ...]


class ModelRoutes:
    """Which backends serve which model.

    A backend with `models` serves those; what else it lists is served too unless `strict_models` is set. A backend without
    `models` serves whatever it lists. Everything else goes to the default backend, or nowhere.
    """

    def __init__(self, config: Config, backends: Mapping[str, Backend], catalogue: Catalogue) -> None:
        self._backends = backends
        self._catalogue = catalogue
        self._aliases = config.routing.aliases
        self._strict = config.routing.strict_models
        self._default_model = config.default_model() or ""
        default = config.default_backend()
        self._default = backends[default] if default is not None else None
        self._configured: dict[str, tuple[Target, ...]] = {}
        self._lengths: dict[str, int | None] = {}
        for backend in backends.values():
            for entry in backend.config.models:
                self._configured.setdefault(entry.name, self._route(backend, entry.name))
                self._lengths.setdefault(entry.name, entry.max_model_len)

    def find(self, model: str) -> tuple[Target, ...]:
        """Targets of a model, its own first, then the fallbacks, by what is known now; empty when no backend serves it.

        Raises InvalidRequest when no model is named and there is no default.
        """
        route = self._configured.get(model)
        return self.rule(model).targets if route is None else route

    def rule(self, model: str) -> Ruling:
        """The targets of a model, and which rule decides. Raises InvalidRequest as `find` does."""
        if not model:
            return self._unnamed()
        if model in self._configured:
            return Ruling(RouteRule.CONFIGURED, model, RouteRule.CONFIGURED, self._configured[model])
        own = self._aliases.get(model, model)
        by, targets = self._named(own)
        return Ruling(by if own == model else RouteRule.ALIAS, own, by, targets)

    def context(self, model: str) -> int | None:
        """Tokens that prompt and answer of a model may have together, by the configuration or its backend's list, if known."""
        name = model if model in self._configured else self._aliases.get(model, model) or self._default_model
        length = self._lengths.get(name)
        if length is not None or not name:
            return length
        target = next(iter(self.find(name)), None)
        listed = target and self._catalogue.listed(target.backend).get(target.model)
        return listed.max_model_len if listed else None

    async def discover(self, model: str) -> tuple[Target, ...]:
        """Ask the backends for models that are new; raises ModelNotFound."""
        await self._catalogue.fresh(DISCOVERY_INTERVAL)
        route = self.find(model)
        if not route:
            raise ModelNotFound(model)
        return route

    def label(self, model: str) -> str:
        """The model's name if it is a known one, else "other": clients may not invent metric labels."""
        known = model in self._configured or model in self._aliases or self._lister(model) is not None
        return model if known else "other"

    def at(self, backend: str, model: str) -> tuple[Target, ...]:
        """Targets of a model at a backend of the caller's choice, and that one's fallbacks."""
        return self._route(self._backends[backend], model)

    def takes(self, model: str) -> bool:
        """Whether a call for this name goes anywhere, if only to the default backend, by what is known now."""
        return bool(self.find(model))

    def offers(self) -> list[Offer]:
        """The configured models with what they are good at, in the order of the configuration, and whether they can be had."""
        found: dict[str, Offer] = {}
        for backend in self._backends.values():
            available = _takes_calls(backend)
            for entry in backend.config.models:
                found.setdefault(entry.name, Offer(entry.name, entry.capabilities, available))
        return list(found.values())

    def offer(self, model: str) -> Offer | None:
        """The same of one model or alias, None when no backend has it; one that is only listed counts as `general`."""
        name = model if model in self._configured else self._aliases.get(model, model)
        for backend in self._backends.values():
            entry = next((entry for entry in backend.config.models if entry.name == name), None)
            if entry is not None:
                return Offer(model, entry.capabilities, _takes_calls(backend))
        lister = self._lister(name)
        return None if lister is None else Offer(model, (GENERAL,), _takes_calls(lister))

    async def default_model(self) -> str:
        """The model for calls that name none: the configured one, else the first that the default backend lists, else ""."""
        if self._default_model or self._default is None:
            return self._default_model
        await self._catalogue.fresh()
        return next(iter(self._catalogue.listed(self._default.name)), "")

    async def models(self) -> list[RoutableModel]:
        """Exactly the models that can be asked, sorted by backend, then by name."""
        await self._catalogue.fresh()
        found: dict[str, RoutableModel] = {}
        for backend in self._backends.values():
            for model in self._models_of(backend):
                found.setdefault(model.id, model)
        for alias, name in self._aliases.items():
            if name in found and alias not in found:
                of = found[name]
                found[alias] = RoutableModel(alias, of.backend, of.configured, of.max_model_len, b"", alias_of=name)
        return sorted(found.values(), key=lambda model: (model.backend.name, model.id))

    def _models_of(self, backend: Backend) -> list[RoutableModel]:
        listed = self._catalogue.listed(backend.name)
        models = []
        for entry in backend.config.models:
            upstream = listed.get(backend.config.model_mapping.get(entry.name, entry.name))
            own = upstream.entry if upstream is not None and upstream.id == entry.name else b""
            length = entry.max_model_len or (upstream.max_model_len if upstream else None) or 0
            models.append(RoutableModel(entry.name, backend, entry, length, own))
        if self._takes_listed(backend):
            others = (m for m in listed.values() if m.id not in self._configured)  # those go to where they are configured
            models += [RoutableModel(m.id, backend, None, m.max_model_len or 0, m.entry) for m in others]
        return models

    def _route(self, backend: Backend, model: str) -> tuple[Target, ...]:
        fallbacks = (self._backends[name].fallback_target(model) for name in backend.config.fallback_backends)
        return (backend.target(model), *fallbacks)

    def _named(self, model: str) -> tuple[RouteRule, tuple[Target, ...]]:
        """Where a model goes that is no alias."""
        route = self._configured.get(model)
        if route is not None:
            return RouteRule.CONFIGURED, route
        backend = self._lister(model)
        if backend is not None:
            return RouteRule.LISTED, self._route(backend, model)
        if self._strict or self._default is None:
            return RouteRule.NONE, ()
        return RouteRule.DEFAULT_BACKEND, self._route(self._default, model)

    def _unnamed(self) -> Ruling:
        if self._default_model:
            found = self.rule(self._default_model)
            if found.targets:
                return Ruling(RouteRule.DEFAULT_MODEL, found.model, found.by, found.targets)
        if self._default is not None:
            return Ruling(RouteRule.DEFAULT_BACKEND, "", RouteRule.DEFAULT_BACKEND, self._route(self._default, ""))
        raise InvalidRequest("No model is named, and no default model is configured.", "model")

    def _lister(self, model: str) -> Backend | None:
        """The backend that lists a model which is not configured."""
        listers = (self._backends[name] for name in self._catalogue.listers(model))
        return next((backend for backend in listers if self._takes_listed(backend)), None)

    def _takes_listed(self, backend: Backend) -> bool:
        return not (self._strict and backend.config.models)


def _takes_calls(backend: Backend) -> bool:
    now = backend.pool.now()
    return any(endpoint.condition.available(now) for endpoint in backend.endpoints)


class PinnedRoutes:
    """Routes of which some models go to a backend of the operator's choice; `pinned` is model -> backend."""

    def __init__(self, routes: ModelRoutes, pinned: Mapping[str, str]) -> None:
        self._routes = routes
        self._pinned = pinned

    def find(self, model: str) -> tuple[Target, ...]:
        """As ModelRoutes, for models that are not pinned."""
        backend = self._pinned.get(model)
        return self._routes.find(model) if backend is None else self._routes.at(backend, model)

    async def discover(self, model: str) -> tuple[Target, ...]:
        """As ModelRoutes."""
        return await self._routes.discover(model)
