"""`lexora demo`."""

from typing import Annotated

import typer

_Port = Annotated[int, typer.Option(min=0, max=65535, metavar="PORT", help="0 picks a free one, so does a port that is taken.")]


def demo(
    model: Annotated[str, typer.Option(metavar="NAME", help="Name of the simulated model.")] = "qwen3-32b",
    engine_port: _Port = 8000,
    port: _Port = 8001,
    grpc_port: _Port = 50051,
) -> None:
    """Start a simulated engine and the gateway.

    Prints what to try. Ctrl-C ends both.

    \b
    Examples:
      lexora demo
      lexora demo --model mistral-7b
    """
    from lexora_cli.demo_run import Demo, Ports
    from lexora_router.process.launch import run

    started = Demo(model, Ports(engine_port, port, grpc_port))
    run(started.run())
    raise typer.Exit(started.code)
