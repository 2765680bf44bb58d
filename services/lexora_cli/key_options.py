"""Options and arguments of `lexora keys`, and what is read from them."""

from typing import Annotated

import typer

File = Annotated[
    str | None,
    typer.Option("--file", "-f", metavar="FILE", help="The file of keys. Else auth.keys_file of the configuration."),
]
KeyId = Annotated[str, typer.Argument(metavar="ID", help="The key's public id, or sk-lx-ID.", show_default=False)]
Expires = Annotated[
    str | None, typer.Option(metavar="SPAN|DATE", help="When it ends by itself: 90d, 12h, or 2027-01-31. Else never.")
]
Globs = Annotated[
    list[str] | None,
    typer.Option("--models", metavar="GLOB", help="Models that it may ask, such as 'qwen*'; again for more. Else all."),
]
Operations = Annotated[
    list[str] | None,
    typer.Option(metavar="GLOB", help="What it may call: chat, embeddings, or '/v1/chat/*'; again for more. Else all."),
]


def public_id(given: str) -> str:
    """The public id in what may be more of a key."""
    from lexora_router.access.key_format import ID_LENGTH, PREFIX

    return given.removeprefix(PREFIX)[:ID_LENGTH] if given.startswith(PREFIX) else given


def patterns(given: list[str] | None) -> tuple[str, ...]:
    """Patterns, of which one option may have several with commas between."""
    return tuple(part.strip() for each in given or () for part in each.split(",") if part.strip())


def paths(given: list[str] | None) -> tuple[str, ...]:
    """Patterns of paths; a plain word is the name of operations, and stands for their paths. Raises BadParameter."""
    from lexora_contract.operations import OPERATIONS

    found: list[str] = []
    for part in patterns(given):
        here = [part] if {"/", "*", "?"} & set(part) else [path for path, row in OPERATIONS.items() if row.name == part]
        if not here:
            names = ", ".join(sorted({row.name for row in OPERATIONS.values()}))
            raise typer.BadParameter(f"{part} is no path, such as '/v1/chat/*', and none of {names}")
        found += here
    return tuple(dict.fromkeys(found))


def priority_of(given: str | None) -> int | None:
    """The number of a priority. Raises BadParameter."""
    from lexora_contract.priority import parse_priority

    if given is None:
        return None
    try:
        return parse_priority(given)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
