"""What the models allow at a key path: for hints, for the environment, and for the tests of the documentation."""

import types
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, SecretStr

from lexora_router.config.models import Config


@dataclass(frozen=True)
class Shape:
    """The form of a value: a section (BaseModel), dict, tuple, or the scalars str, int, float, bool."""

    kind: type
    optional: bool = False  # null is allowed
    item: Any = None  # the annotation of a tuple's items or a dict's values
    choices: tuple[str, ...] = ()  # the words of a str; of an int or a bool, the words that may stand instead

    @property
    def fields(self) -> dict[str, Any]:
        """The keys of a section with their annotations; empty for other kinds."""
        if not issubclass(self.kind, BaseModel):
            return {}
        # FieldInfo.annotation has lost the outermost Annotated, whose limits are not asked for here.
        return {name: field.annotation for name, field in self.kind.model_fields.items()}

    @property
    def nested(self) -> bool:
        """Whether the value is a section, a map or a list."""
        return issubclass(self.kind, BaseModel | dict | tuple)

    def child(self, key: str | int) -> "Shape | None":
        """Return the form below a key or an index, or None when there can be nothing."""
        if isinstance(key, str) and key in self.fields:
            return shape(self.fields[key])
        wanted = tuple if isinstance(key, int) else dict
        return shape(self.item) if issubclass(self.kind, wanted) else None


def shape(annotation: Any) -> Shape:
    """Return the form that an annotation of `config` describes."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return shape(arguments[0])
    if origin in (Union, types.UnionType):
        first, *words = [shape(argument) for argument in arguments if argument is not types.NoneType]
        choices = first.choices + tuple(choice for form in words for choice in form.choices)
        return Shape(first.kind, types.NoneType in arguments, first.item, choices)
    if origin is Literal:
        return Shape(str, choices=arguments)
    if origin is tuple:
        return Shape(tuple, item=arguments[0])
    if origin is dict:
        return Shape(dict, item=arguments[1])
    return Shape(str if isinstance(annotation, type) and issubclass(annotation, SecretStr) else annotation)


ROOT = Shape(Config)


def at(path: tuple[str | int, ...]) -> Shape | None:
    """Return the form at a key path, or None when the models have no such path."""
    found: Shape | None = ROOT
    for key in path:
        found = found.child(key) if found else None
    return found


def leaves(root: Shape = ROOT, prefix: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Shape]]:
    """Yield every key that is no section, as (path, form). Chosen names appear as `*`, positions in a list as `[]`."""
    for name, annotation in root.fields.items():
        form, path = shape(annotation), (*prefix, name)
        sign = ("*",) if form.kind is dict else ("[]",) if form.kind is tuple else ()
        below = shape(form.item) if sign else form
        if form.kind is tuple or not below.fields:
            yield path, form
        yield from leaves(below, (*path, *sign))
