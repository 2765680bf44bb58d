"""The `lexora` command: its subcommands, put together."""

import os
from collections.abc import Callable
from typing import Annotated

import typer

from lexora_cli.commands.chat import chat
from lexora_cli.commands.check import check
from lexora_cli.commands.demo import demo
from lexora_cli.commands.explain import explain
from lexora_cli.commands.gateway import gateway
from lexora_cli.commands.init import init
from lexora_cli.commands.models import models
from lexora_cli.commands.reload import reload
from lexora_cli.commands.router import router
from lexora_cli.commands.serve import serve
from lexora_cli.commands.sim import sim
from lexora_cli.commands.status import status
from lexora_cli.commands.top import top
from lexora_cli.screen import plain
from lexora_router.version import __version__

# Local variables in a traceback may hold keys and prompts: tracebacks stay plain.
app = typer.Typer(
    name="lexora",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        plain(f"lexora {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")] = False,
) -> None:
    """The LLM gateway for teams who run their own vLLM fleets."""


_PANELS: dict[str, tuple[Callable[..., None], ...]] = {
    "Serve": (serve, init, check, router, gateway),
    "Ask a router": (chat, models, status, top, explain, reload),
    "Try without a GPU": (demo, sim),
}
for _panel, _commands in _PANELS.items():
    for _command in _commands:
        app.command(rich_help_panel=_panel)(_command)


def main() -> None:
    """Run the command; what it ends with is the exit code of the process."""
    # gRPC's own complaints would stand beside ours; it reads this when it is imported.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    app()
