"""The `lexora` command: its subcommands, put together."""

import os
from collections.abc import Callable
from itertools import chain
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from lexora_cli.commands.audit import audit
from lexora_cli.commands.chat import chat
from lexora_cli.commands.check import check
from lexora_cli.commands.demo import demo
from lexora_cli.commands.explain import explain
from lexora_cli.commands.gateway import gateway
from lexora_cli.commands.idle import idle
from lexora_cli.commands.init import init
from lexora_cli.commands.keys import keys
from lexora_cli.commands.models import models
from lexora_cli.commands.reload import reload
from lexora_cli.commands.router import router
from lexora_cli.commands.serve import serve
from lexora_cli.commands.sim import sim
from lexora_cli.commands.status import status
from lexora_cli.commands.top import top
from lexora_cli.commands.whoami import whoami
from lexora_cli.screen import plain
from lexora_router.version import __version__, commit

COMMANDS: dict[str, tuple[Callable[..., None] | typer.Typer, ...]] = {
    "Serve": (serve, init, check, keys, router, gateway),
    "Ask a router": (chat, models, status, top, explain, reload, idle, audit, whoami),
    "Try without a GPU": (demo, sim),
}


def _name(command: Callable[..., None] | typer.Typer) -> str:
    return str(command.info.name) if isinstance(command, typer.Typer) else command.__name__


class _Grouped(TyperGroup):
    """Help that lists the commands below what they are for."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        for title, commands in COMMANDS.items():
            found = [(name, self.get_command(ctx, name)) for name in map(_name, commands)]
            with formatter.section(title):
                formatter.write_dl([(name, command.get_short_help_str(formatter.width)) for name, command in found if command])


# Plain help: it is the same in a pipe, cuts no name of an option, and imports nothing that draws boxes.
# Local variables in a traceback may hold keys and prompts: tracebacks stay plain.
app = typer.Typer(
    name="lexora",
    cls=_Grouped,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        built_from = commit()
        plain(f"lexora {__version__}" + (f" (commit {built_from})" if built_from else ""))
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Version and commit.")] = False,
) -> None:
    """The LLM gateway for teams who run their own vLLM fleets."""


for _command in chain.from_iterable(COMMANDS.values()):
    if isinstance(_command, typer.Typer):
        app.add_typer(_command)
    else:
        app.command()(_command)


def main() -> None:
    """Run the command; what it ends with is the exit code of the process."""
    # gRPC's own complaints would stand beside ours; it reads this when it is imported.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    app()
