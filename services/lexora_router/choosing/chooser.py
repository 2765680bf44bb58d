"""From a task to the model that is recommended, for classify-task and for calls that ask for `auto`."""

from collections.abc import Sequence
from typing import Protocol

from lexora_contract.answer import Choice
from lexora_contract.operations import operation_of
from lexora_router.call import AUTO, Call
from lexora_router.choosing.decide.label import Label
from lexora_router.choosing.decide.ranking import Offer, recommend
from lexora_router.choosing.decide.text import normalised, task_of
from lexora_router.choosing.labeller import Labeller
from lexora_router.errors import ClassifierDisabled, InvalidRequest, ModelNotFound
from lexora_router.payload.rewrite import with_model
from lexora_router.principal import Principal

MAX_CANDIDATES = 1000

_NO_TEXT = Label("", 0.0, "There is no text to classify.", "")
_OFF = "Task classification is switched off here (routing.classifier.enabled); name a model yourself."
_NO_DEFAULT = (
    "Task classification needs a default model (routing.default_model_for_unknown_task), and none is configured; "
    "name a model yourself."
)


class Models(Protocol):
    """What may be recommended."""

    def offers(self) -> list[Offer]:
        """The configured models, in their order."""

    def offer(self, model: str) -> Offer | None:
        """A model or alias that is configured or listed by a backend; None for any other name."""

    def takes(self, model: str) -> bool:
        """Whether a call for this name would go anywhere, if only to the default backend."""


class Chooser:
    """Chooses models. Without a `labeller` or a `default` model it refuses."""

    def __init__(self, models: Models, labeller: Labeller | None, default: str | None) -> None:
        self._models = models
        self._labeller = labeller
        self._default = default

    async def choose(self, task: str, candidates: Sequence[str], call: Call) -> Choice:
        """The best model for a task among the candidates (all configured models when empty) that the caller may use.

        Raises ClassifierDisabled, InvalidRequest that names the candidates that no backend has, and ModelNotFound where it
        may use none. An unknown task, a
        classifier that fails or is late is no error: then it is the default model, and `reasoning` says why.
        """
        labeller, default = self._ready()
        offers = self._among(candidates, call.principal) if candidates else self._all(default, call.principal)
        default = default if call.principal.may_use(default) else ""
        text = normalised(task)
        label = await labeller.label(text, call) if text else _NO_TEXT
        return recommend(label, offers, default)

    async def resolve_auto(self, call: Call) -> None:
        """Give a call for `auto` the model that fits its last user message; the choice is in its receipt.

        A real model or alias of that name wins. Where tasks are not classified a default backend gets the name as any other
        that no backend lists; without one ClassifierDisabled is raised.
        """
        if not self._chooses_for(call):
            self._check_name(call)
            return
        choice = await self.choose(task_of(call.body), (), call)
        call.receipt.auto = choice
        call.model = choice.model
        call.body = with_model(call.body, choice.model)

    def predict(self, call: Call) -> Choice | None:
        """What a call for `auto` would get, as far as that is known without asking; None where it is a name like others.

        Raises ClassifierDisabled.
        """
        if not self._chooses_for(call):
            self._check_name(call)
            return None
        labeller, default = self._ready()
        text, offers = normalised(task_of(call.body)), self._all(default, call.principal)
        default = default if call.principal.may_use(default) else ""
        return recommend(labeller.predict(text, call) if text else _NO_TEXT, offers, default)

    async def close(self) -> None:
        """End the questions under way."""
        if self._labeller is not None:
            await self._labeller.close()

    def _check_name(self, call: Call) -> None:
        """A name like others must be among those that the caller may use."""
        if not call.principal.may_use(AUTO):
            raise ModelNotFound(AUTO)

    def _chooses_for(self, call: Call) -> bool:
        """Whether `auto` is no name like any other in this call."""
        if not operation_of(call.path).auto or self._models.offer(AUTO) is not None:
            return False
        return self._labeller is not None or not self._models.takes(AUTO)

    def _ready(self) -> tuple[Labeller, str]:
        if self._labeller is None:
            raise ClassifierDisabled(_OFF)
        if self._default is None:
            raise ClassifierDisabled(_NO_DEFAULT)
        return self._labeller, self._default

    def _all(self, default: str, principal: Principal) -> list[Offer]:
        offers = self._models.offers()
        if all(offer.model != default for offer in offers):
            offers.append(self._models.offer(default) or Offer(default, (), available=True))
        offers = [offer for offer in offers if principal.may_use(offer.model)]
        if not offers:
            raise ModelNotFound(AUTO)
        return offers

    def _among(self, candidates: Sequence[str], principal: Principal) -> list[Offer]:
        if len(candidates) > MAX_CANDIDATES:
            raise InvalidRequest(f"candidate_models takes at most {MAX_CANDIDATES} names.", "candidate_models")
        found = {name: self._models.offer(name) if principal.may_use(name) else None for name in candidates}
        unknown = [name for name, offer in found.items() if offer is None]
        if unknown:
            shown = ", ".join(f"`{name[:100]}`" for name in unknown[:3]) + (" and others" if len(unknown) > 3 else "")
            raise InvalidRequest(f"candidate_models names models that do not exist: {shown}.", "candidate_models")
        return [offer for offer in found.values() if offer is not None]
