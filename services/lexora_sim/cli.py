"""Command line arguments: one for every setting."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from typing import Any

from lexora_sim.settings import SimSettings
from lexora_sim.simulator import run

_LISTS = {"models": "model", "embedding_models": "embedding-model"}
_KINDS: dict[str, type] = {"int": int, "float": float, "str": str, "int | None": int, "str | None": str}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    parser = _parser()
    try:
        settings = read_settings(parser.parse_args(arguments))
    except ValueError as error:
        parser.error(str(error))
    return run(settings)


def read_settings(parsed: argparse.Namespace) -> SimSettings:
    """Return the settings of parsed arguments; raises ValueError."""
    values: dict[str, Any] = {name: value for name, value in vars(parsed).items() if value is not None}
    for name in _LISTS:
        if name in values:
            values[name] = tuple(values[name])
    if "embedding_models" in values and "models" not in values:
        values["models"] = ()
    return SimSettings(**values)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m lexora_sim", description="A simulated vLLM server.")
    for field in dataclasses.fields(SimSettings):
        name, kind = field.name, str(field.type)
        shown = f"default: {field.default}"
        if name in _LISTS:
            flag = f"--{_LISTS[name]}"
            parser.add_argument(flag, dest=name, action="append", help="repeatable; " + shown)
        elif kind == "bool":
            flag = f"--{name.replace('_', '-')}"
            parser.add_argument(flag, action=argparse.BooleanOptionalAction, default=None, help=shown)
        else:
            flag = f"--{name.replace('_', '-')}"
            parser.add_argument(flag, type=_KINDS[kind], help=shown)
    return parser
