"""The base of every section, and how checks across keys become validation errors."""

from collections.abc import Iterable

from pydantic import BaseModel, ConfigDict
from pydantic_core import PydanticCustomError

from lexora_router.config.check import Fault
from lexora_router.config.problems import Problem

CROSS_CHECK = "cross_check"  # the error type of faults that check finds


class Section(BaseModel):
    """A frozen group of keys that allows no others."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


def refuse(faults: Iterable[Fault]) -> None:
    """Raise a validation error of type CROSS_CHECK when there is any fault."""
    found = list(faults)
    if found:
        text = "; ".join(str(Problem(None, path, message)) for path, message in found)
        raise PydanticCustomError(CROSS_CHECK, "{text}", {"text": text, "faults": found})
