"""What names the kind of a task: rules, the nearest of labelled examples, a model, or one after the other."""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from lexora_router.config.check import classifier_faults
from lexora_router.config.patterns import checked
from lexora_router.config.section import Section, refuse
from lexora_router.config.values import BackendName, Count, Delay, Flag, Ratio, Seconds, Text

MAX_RULES = 256
MAX_OF_RULE = 256  # patterns, and words, of one rule
MAX_EXAMPLES = 512  # each is compared with each task
MAX_EXAMPLE = 1000  # characters of an example
MAX_CACHED = 100_000

Kind = Literal["rules", "embedding", "llm"]


def _one_or_many(value: object) -> object:
    return [value] if isinstance(value, str) else value


Pattern = Annotated[Text, AfterValidator(checked)]
Excerpt = Annotated[Text, Field(max_length=MAX_EXAMPLE)]


class RuleConfig(Section):
    """Tasks in which a word or a pattern occurs, in any case, are of this kind. The first rule that fits wins."""

    capability: Text
    words: Annotated[tuple[Text, ...], BeforeValidator(_one_or_many)] = Field(default=(), max_length=MAX_OF_RULE)
    patterns: Annotated[tuple[Pattern, ...], BeforeValidator(_one_or_many)] = Field(default=(), max_length=MAX_OF_RULE)
    confidence: Ratio = 0.9


class ExampleConfig(Section):
    """A task whose kind is known."""

    text: Excerpt
    capability: Text


class EmbeddingConfig(Section):
    """The nearest labelled example decides."""

    model: Text | None = None
    backend: BackendName | None = None  # default: the one that serves the model
    min_similarity: Ratio = 0.5  # cosine; below it nothing is near
    examples: tuple[ExampleConfig, ...] = Field(default=(), max_length=MAX_EXAMPLES)


class ClassifierConfig(Section):
    """The classifiers that name the kind of a task, in which order, and how sure they must be."""

    enabled: Flag = False
    type: Annotated[tuple[Kind, ...], BeforeValidator(_one_or_many)] = Field(default=("llm",), min_length=1, max_length=3)
    min_confidence: Ratio = 0.5  # below it the next one is asked
    timeout: Seconds = 5.0  # of all of them together
    cache_size: Count = Field(default=1000, le=MAX_CACHED)  # answers that are remembered
    cache_ttl: Delay = 300.0
    model: Text | None = None  # of llm
    backend: BackendName | None = None  # of llm; default: the one that serves the model
    rules: tuple[RuleConfig, ...] = Field(default=(), max_length=MAX_RULES)
    embedding: EmbeddingConfig = EmbeddingConfig()

    @model_validator(mode="after")
    def _cross_check(self) -> Self:
        refuse(classifier_faults(self.model_dump()))
        return self
