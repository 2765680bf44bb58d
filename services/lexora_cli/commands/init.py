"""`lexora init`."""

from pathlib import Path
from typing import Annotated

import typer

from lexora_cli.screen import complain, fail

File = Annotated[Path, typer.Argument(metavar="FILE", help="Where to write it; - is stdout.")]
Force = Annotated[bool, typer.Option("--force", "-f", help="Replace a file that is there.")]


def init(file: File = Path("lexora_config.yaml"), force: Force = False) -> None:
    """Write a commented configuration file with every key.

    As it stands it changes nothing: keys show their defaults, the others are commented out.
    Exit code 1 when the file is there already or cannot be written.

    \b
    Examples:
      lexora init
      lexora init /etc/lexora/config.yaml
      lexora init - | less
    """
    import sys
    from importlib.resources import files

    text = files("lexora_cli").joinpath("lexora_config.yaml").read_text("utf-8")
    if str(file) == "-":
        sys.stdout.write(text)
        return
    try:
        with file.open("w" if force else "x", encoding="utf-8") as stream:
            stream.write(text)
    except FileExistsError:
        fail(f"{file} is there already; --force replaces it")
    except OSError as error:
        fail(f"cannot write {file}: {error.strerror}")
    complain(f"wrote {file}; set vllm.url or routing.backends in it, then: lexora check --config {file}")
