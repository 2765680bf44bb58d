"""`lexora keys`: make, list, show, revoke, rotate and import keys."""

from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from lexora_cli.key_options import Expires, File, Globs, KeyId, Operations, paths, patterns, priority_of, public_id
from lexora_cli.options import AsJson, ConfigFile
from lexora_cli.reach import Reach, asks_router
from lexora_cli.screen import complain, fail, plain, print_json, show

if TYPE_CHECKING:
    from lexora_cli.key_place import KeyPlace, Made

keys = typer.Typer(
    name="keys",
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="""Make, list, show, revoke, rotate and import keys.

    Keys are in a file of hashes (auth.keys_file), which a running gateway follows: a change is in force within 2
    seconds. With --router the router makes the change itself.

    \b
    Examples:
      lexora keys create --name ci --models 'qwen*' --expires 90d
      lexora keys list
      lexora keys rotate 4uTGkQ2vXb0L --overlap 7d
      lexora keys revoke 4uTGkQ2vXb0L
    """,
)


@keys.command()
@asks_router
def create(
    *,
    name: Annotated[str, typer.Option(metavar="NAME", help="Name of the key, for people.", show_default=False)],
    tenant: Annotated[str | None, typer.Option(metavar="NAME", help="Account for limits and fairness. Else its name.")] = None,
    models: Globs = None,
    operations: Operations = None,
    rate: Annotated[float | None, typer.Option(metavar="N", help="Requests per second. Else as its tenant.")] = None,
    burst: Annotated[int | None, typer.Option(metavar="N", help="Requests at once. Else as its tenant.")] = None,
    tokens_per_minute: Annotated[int | None, typer.Option(metavar="N", help="Tokens per minute. Else as its tenant.")] = None,
    max_concurrency: Annotated[int | None, typer.Option(metavar="N", help="Calls under way. Else as its tenant.")] = None,
    priority: Annotated[
        str | None, typer.Option(metavar="P", help="Of calls that ask for none: high, normal, low, or 0 to 100.")
    ] = None,
    max_priority: Annotated[str | None, typer.Option(metavar="P", help="The highest priority that it may ask for.")] = None,
    expires: Expires = None,
    admin: Annotated[bool, typer.Option("--admin", help="It may also observe, reload, and edit keys.")] = False,
    observe: Annotated[bool, typer.Option("--observe", help="It may also see statistics, metrics and recent calls.")] = False,
    facade: Annotated[
        bool, typer.Option("--facade", help="It is a façade's own: it passes on calls of others, and makes none.")
    ] = False,
    file: File = None,
    router: Reach | None = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Make a key, and show it, this once.

    The key goes to stdout, what it is for to stderr. Only its hash is kept: a key that was lost is replaced, with
    `lexora keys rotate`.

    \b
    Examples:
      lexora keys create --name ci --models 'qwen*' --expires 90d
      lexora keys create --name ops --admin
      lexora keys create --name batch --tenant science --rate 5 --priority low
      KEY=$(lexora keys create --name notebook)
    """
    from lexora_cli.key_place import now
    from lexora_cli.time_options import instant
    from lexora_contract.access import Scope
    from lexora_router.access.key_changes import terms

    granted = {Scope.CALL: not facade, Scope.OBSERVE: observe or admin, Scope.ADMIN: admin, Scope.FACADE: facade}
    wanted = terms(
        name,
        tenant or "",
        scopes=tuple(scope for scope, wanted in granted.items() if wanted),
        models=patterns(models),
        operations=paths(operations),
        rate=rate,
        burst=burst,
        tokens_per_minute=tokens_per_minute,
        max_concurrent=max_concurrency,
        priority=priority_of(priority),
        max_priority=priority_of(max_priority),
        expires=instant(expires, now()) if expires else None,
    )
    place = _place(router, file, config)
    with _failing():
        made = place.create(wanted)
    _show_made(made, place, as_json)


@keys.command("list")
@asks_router
def list_keys(
    *,
    tenant: Annotated[str | None, typer.Option(metavar="NAME", help="Those of this tenant only.")] = None,
    valid: Annotated[bool, typer.Option("--valid", help="Without those that have expired or were revoked.")] = False,
    file: File = None,
    router: Reach | None = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """List the keys, without their secrets.

    \b
    Examples:
      lexora keys list
      lexora keys list --tenant science --valid
      lexora keys list --router 10.0.0.5:50051 --json
    """
    from lexora_cli.key_place import now
    from lexora_cli.key_text import data, table

    time = now()
    with _failing():
        found = _place(router, file, config).all()
    found = [each for each in found if tenant in (None, each.tenant) and (not valid or each.state(time) == "valid")]
    if as_json:
        print_json([data(each, time) for each in found])
    elif not found:
        plain("No keys; make one with `lexora keys create --name NAME`.")
    else:
        show(table(found, time))


@keys.command("show")
@asks_router
def show_key(
    id: KeyId, file: File = None, router: Reach | None = None, config: ConfigFile = None, as_json: AsJson = False
) -> None:
    """Show what a key is for, without its secret.

    \b
    Examples:
      lexora keys show 4uTGkQ2vXb0L
      lexora keys show 4uTGkQ2vXb0L --json
    """
    from lexora_cli.key_place import now
    from lexora_cli.key_text import data, lines

    with _failing():
        found = _place(router, file, config).show(public_id(id))
    if as_json:
        print_json(data(found, now()))
    else:
        for line in lines(found, now()):
            plain(line)


@keys.command()
@asks_router
def revoke(
    id: KeyId, file: File = None, router: Reach | None = None, config: ConfigFile = None, as_json: AsJson = False
) -> None:
    """End a key now. Calls under way go on; it stays in the list.

    \b
    Examples:
      lexora keys revoke 4uTGkQ2vXb0L
      lexora keys revoke 4uTGkQ2vXb0L --router 10.0.0.5:50051
    """
    from lexora_cli.key_place import now
    from lexora_cli.key_text import data, day

    place = _place(router, file, config)
    with _failing():
        found = place.revoke(public_id(id))
    if as_json:
        print_json(data(found, now()))
    else:
        plain(f"revoked: {found.id} ({found.name}), since {day(found.revoked)}, in {place.name}")


@keys.command()
@asks_router
def rotate(
    id: KeyId,
    *,
    overlap: Annotated[str, typer.Option(metavar="SPAN", help="How long the old one still holds: 7d, 12h, 0.")] = "24h",
    expires: Expires = None,
    file: File = None,
    router: Reach | None = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Make a key in the place of another, and show it, this once.

    It has the same terms. The old one holds for --overlap beside it. The new one expires when the old one would
    have, unless --expires says otherwise.

    \b
    Examples:
      lexora keys rotate 4uTGkQ2vXb0L
      lexora keys rotate 4uTGkQ2vXb0L --overlap 0 --expires 90d
    """
    from lexora_cli.key_place import now
    from lexora_cli.time_options import instant, span

    length: timedelta = span(overlap)
    place = _place(router, file, config)
    with _failing():
        made = place.rotate(public_id(id), length, instant(expires, now()) if expires else None)
    _show_made(made, place, as_json)


@keys.command("import")
@asks_router
def import_keys(
    source: Annotated[str, typer.Argument(metavar="FILE", help="JSON lines, - for stdin.", show_default=False)],
    *,
    file: File = None,
    router: Reach | None = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Take over keys that clients have already.

    FILE has a JSON object a line: `name`, and `key` (the key itself, of 20 to 512 characters, which is hashed here) or
    `sha256` (its SHA-256 in hex); further fields as in a file of keys, which may also be imported as it is. Keys that
    are there already are left as they are.

    \b
    Examples:
      lexora keys import old-gateway.jsonl
      echo '{"name":"ci","key":"sk-from-elsewhere-0123"}' | lexora keys import -
    """
    from lexora_cli.key_import import read_import
    from lexora_cli.key_place import now
    from lexora_cli.key_text import data

    place = _place(router, file, config)
    with _failing():
        wanted = read_import(source)
        added = place.take(wanted)
    if as_json:
        print_json([data(each, now()) for each in added])
    else:
        plain(f"imported {len(added)} of {len(wanted)} keys into {place.name}; the others were there already")


def _show_made(made: "Made", place: "KeyPlace", as_json: bool) -> None:
    from lexora_cli.key_place import now
    from lexora_cli.key_text import data, day, lines

    if as_json:
        replaced = {"replaced": data(made.replaced, now())} if made.replaced else {}
        print_json({"key": made.key.text, **data(made.record, now()), **replaced})
        return
    plain(made.key.text)
    complain("this is shown once: keep it now. Only its hash is kept.")
    for line in lines(made.record, now()):
        complain(line)
    if made.replaced is not None:
        complain(f"{made.replaced.id} holds until {day(made.replaced.expires)}")
    complain(f"in {place.name}")
    if place.note:
        complain(place.note)


def _place(router: Reach | None, file: str | None, config: str | None) -> "KeyPlace":
    from lexora_cli.keys_found import place

    if router is not None and file is not None:
        raise typer.BadParameter("give --file or --router, not both")
    with _failing():
        return place(router, file, config)


class _failing:
    """Ends the command with one line for what cannot be done."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        from lexora_cli.key_place import KeysFailure

        if isinstance(error, KeysFailure):
            _end(error)


def _end(error: Exception) -> NoReturn:
    fail(str(error))
