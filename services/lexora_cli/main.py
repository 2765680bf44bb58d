"""The `lexora` command."""

from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, add_completion=True, rich_markup_mode="rich")

ConfigFile = Annotated[str | None, typer.Option("--config", "-c", metavar="FILE")]


@app.callback()
def root() -> None:
    """The LLM gateway for teams who run their own vLLM fleets."""


@app.command()
def serve(config: ConfigFile = None, host: str | None = None, port: int | None = None, grpc_port: int | None = None) -> None:
    """Serve HTTP and gRPC in one process."""
    import os

    from lexora_cli.runtime import run
    from lexora_cli.serve import serve as serve_forever
    from lexora_router.config.load import load
    from lexora_router.telemetry.logs import configure_logs

    loaded = load(config, os.environ)
    changes = {k: v for k, v in (("host", host), ("port", port), ("grpc_port", grpc_port)) if v is not None}
    settings = loaded.config.model_copy(update={"server": loaded.config.server.model_copy(update=changes)})
    writer = configure_logs(settings.logging.level, settings.logging.format)
    try:
        run(serve_forever(settings))
    finally:
        writer.close()


def main() -> None:
    """Run the command."""
    app()
