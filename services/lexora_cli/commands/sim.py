"""`lexora sim`."""

import inspect
from typing import Any

import typer

from lexora_cli.fast_imports import fast_imports
from lexora_cli.screen import fail
from lexora_cli.sim_options import OPTIONS


def sim(**values: Any) -> None:
    """Run a simulated vLLM server, without a GPU.

    Deterministic text, a timing model and faults on demand.

    \b
    Examples:
      lexora sim --port 8000 --model qwen3-32b
      lexora sim --model qwen3-32b --embedding-model bge-m3 --ttft-ms 200
    """
    with fast_imports():
        from lexora_sim import SimSettings, run

    # Typer hands lists over, and an empty one for an option that was not given.
    settings: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
    if settings["embedding_models"] and settings["models"] == ("sim-model",):
        settings["models"] = ()
    try:
        checked = SimSettings(**settings)
    except ValueError as error:
        fail(str(error), 2)
    raise typer.Exit(run(checked))


# Typer reads the options from here.
_PARAMETERS = [option.parameter() for option in OPTIONS]
sim.__signature__ = inspect.Signature(_PARAMETERS, return_annotation=None)  # type: ignore[attr-defined]  # functions have one
sim.__annotations__ = {parameter.name: parameter.annotation for parameter in _PARAMETERS} | {"return": None}
