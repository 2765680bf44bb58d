"""The kinds of classifiers. Each names the kind of a task, or abstains."""

import asyncio
from collections.abc import Sequence
from typing import Protocol

import msgspec

from lexora_contract.operations import CHAT, EMBEDDINGS
from lexora_router.choosing.ask import Ask, Cause
from lexora_router.choosing.decide.label import Label
from lexora_router.choosing.decide.nearest import Vector, nearer, unit, verdict
from lexora_router.choosing.decide.question import guided, plain
from lexora_router.choosing.decide.reading import answer_text, read
from lexora_router.choosing.decide.rules import TaskRule, match
from lexora_router.choosing.decide.text import excerpt
from lexora_router.config import EmbeddingConfig
from lexora_router.errors import UpstreamInvalid, UpstreamRefused

MAX_EMBEDDED = 1000  # characters of a task: embedding models read little
MAX_DIMENSIONS = 8192
BATCH = 64  # examples that are embedded at once
SLICE = 32  # examples that are compared before others get their turn


class Stage(Protocol):
    """One classifier."""

    name: str

    async def label(self, text: str, cause: Cause) -> Label | None:
        """The label of a task, None when it abstains; raises RouterError when it gets no answer."""


class ByRules:
    """Words and patterns."""

    name = "rules"

    def __init__(self, rules: Sequence[TaskRule]) -> None:
        self._rules = rules

    async def label(self, text: str, cause: Cause) -> Label | None:
        """The first rule that fits."""
        return self.match(text)

    def match(self, text: str) -> Label | None:
        """The same at once."""
        return match(self._rules, text)


class ByModel:
    """A model is asked for one of the kinds: with a schema, and without where the engine refuses that."""

    name = "llm"

    def __init__(self, ask: Ask, model: str, kinds: Sequence[str], *, switches_thinking: bool) -> None:
        self._ask = ask
        self._model = model
        self._kinds = kinds
        self._switches_thinking = switches_thinking
        self._guided = True

    async def label(self, text: str, cause: Cause) -> Label | None:
        """What the model says, if it is one of the kinds."""
        return read(answer_text(await self._answer(text, cause)), self._kinds)

    async def _answer(self, text: str, cause: Cause) -> bytes:
        if self._guided:
            try:
                body = guided(self._model, text, self._kinds, switches_thinking=self._switches_thinking)
                return await self._ask(CHAT, self._model, body, cause)
            except UpstreamRefused as refusal:
                if refusal.http_status != 400:
                    raise
        answer = await self._ask(CHAT, self._model, plain(self._model, text, self._kinds), cause)
        self._guided = False  # it was the schema that was refused: not to be tried again
        return answer


class _Datum(msgspec.Struct, gc=False):
    embedding: list[float]
    index: int = 0


class _Embeddings(msgspec.Struct, gc=False):
    data: list[_Datum]


_embeddings = msgspec.json.Decoder(_Embeddings)


class Learned:
    """What is known of the examples: capability and vector of each, in their order."""

    def __init__(self) -> None:
        self.vectors: list[tuple[str, Vector]] = []
        self.lock = asyncio.Lock()


class ByExample:
    """The nearest labelled example. The examples are embedded at the first question; `learned` holds what is known of them."""

    name = "embedding"

    def __init__(self, ask: Ask, config: EmbeddingConfig, capabilities: frozenset[str], learned: Learned) -> None:
        self._ask = ask
        self._model = config.model or ""
        self._min_similarity = config.min_similarity
        self._examples = [example for example in config.examples if example.capability in capabilities]
        self._learned = learned

    async def label(self, text: str, cause: Cause) -> Label | None:
        """The capability of the example that is nearest, if it is near enough."""
        await self._learn(cause)
        [task] = await self._vectors([excerpt(text, MAX_EMBEDDED)], cause)
        best: dict[str, float] = {}
        vectors = self._learned.vectors
        if any(len(vector) != len(task) for _, vector in vectors):
            vectors.clear()  # the engine has another model under this name by now: the examples are embedded anew
            raise UpstreamInvalid("The embeddings of the examples have another length than the task's.")
        for start in range(0, len(vectors), SLICE):
            nearer(best, vectors[start : start + SLICE], task)
            await asyncio.sleep(0)
        return verdict(best, self._min_similarity)

    async def _learn(self, cause: Cause) -> None:
        """Embed what is not known yet; what one call has learned before its time was over is kept for the next."""
        known = self._learned.vectors
        if len(known) == len(self._examples):
            return
        async with self._learned.lock:
            while missing := self._examples[len(known) :][:BATCH]:
                vectors = await self._vectors([example.text for example in missing], cause)
                known += zip([example.capability for example in missing], vectors, strict=True)

    async def _vectors(self, texts: list[str], cause: Cause) -> list[Vector]:
        body = msgspec.json.encode({"model": self._model, "input": texts, "encoding_format": "float"})
        answer = await self._ask(EMBEDDINGS, self._model, body, cause)
        try:
            data = sorted(_embeddings.decode(answer).data, key=lambda datum: datum.index)
            vectors = [unit(datum.embedding) for datum in data if len(datum.embedding) <= MAX_DIMENSIONS]
        except (ValueError, OverflowError):  # msgspec's errors are ValueErrors
            raise UpstreamInvalid("The answer holds no embeddings.") from None
        if len(vectors) != len(texts):
            raise UpstreamInvalid(f"{len(vectors)} usable embeddings were answered for {len(texts)} texts.")
        return vectors
