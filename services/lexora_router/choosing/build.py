"""The chooser that a configuration asks for."""

from collections.abc import Callable
from dataclasses import dataclass, field

from lexora_router.call import Handler
from lexora_router.choosing.ask import Ask
from lexora_router.choosing.chooser import Chooser, Models
from lexora_router.choosing.decide.cache import Memory
from lexora_router.choosing.decide.label import Label
from lexora_router.choosing.decide.rules import compile_rules
from lexora_router.choosing.labeller import Labeller
from lexora_router.choosing.stages import ByExample, ByModel, ByRules, Learned, Stage
from lexora_router.config import ClassifierConfig, Config


@dataclass(slots=True)
class Known:
    """What classifiers have found out; it holds while their settings and the capabilities are the same."""

    terms: tuple[ClassifierConfig, frozenset[str]]
    labels: Memory[Label]
    learned: Learned = field(default_factory=Learned)


def recall(config: Config, previous: Known | None) -> Known:
    """What an earlier configuration's classifiers have found out, if it holds for this one, else nothing yet."""
    classifier = config.routing.classifier
    terms = (classifier, _capabilities(config))
    if previous is not None and previous.terms == terms:
        return previous
    return Known(terms, Memory(classifier.cache_size, classifier.cache_ttl))


def build_chooser(config: Config, models: Models, known: Known, handler: Handler, clock: Callable[[], float]) -> Chooser:
    """The chooser; `handler` serves the classifiers' own calls."""
    classifier, default = config.routing.classifier, config.routing.default_model_for_unknown_task
    if not classifier.enabled:
        return Chooser(models, None, default)
    labeller = Labeller(
        _stages(config, known, Ask(handler, clock)),
        min_confidence=classifier.min_confidence,
        timeout=classifier.timeout,
        memory=known.labels,
        clock=clock,
    )
    return Chooser(models, labeller, default)


def pinned(config: Config) -> dict[str, str]:
    """The backends that classifiers' models are asked at, by model, where the configuration names one."""
    classifier = config.routing.classifier
    named = ((classifier.embedding.model, classifier.embedding.backend), (classifier.model, classifier.backend))
    return {model: backend for model, backend in named if model and backend in config.backends()}


def _stages(config: Config, known: Known, ask: Ask) -> list[Stage]:
    classifier, capabilities = config.routing.classifier, _capabilities(config)
    made: list[Stage] = []
    for kind in classifier.type:
        if kind == "rules":
            made.append(ByRules(compile_rules(classifier.rules, capabilities)))
        elif kind == "embedding":
            made.append(ByExample(ask, classifier.embedding, capabilities, known.learned))
        elif capabilities:
            made.append(
                ByModel(ask, classifier.model or "", sorted(capabilities), switches_thinking=_switches_thinking(config))
            )
    return made


def _capabilities(config: Config) -> frozenset[str]:
    models = (model for backend in config.backends().values() for model in backend.models)
    return frozenset(capability for model in models for capability in model.capabilities)


def _switches_thinking(config: Config) -> bool:
    """Whether the thinking of the model that classifies can be switched off, as far as the configuration says."""
    classifier, backends = config.routing.classifier, config.backends()
    owner = next((name for name, backend in backends.items() if classifier.model in [m.name for m in backend.models]), None)
    name = pinned(config).get(classifier.model or "") or owner or config.default_backend()
    return name in backends and backends[name].family.switches_thinking
