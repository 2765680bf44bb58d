"""Compiles the stub engine and the load generator, once per state of their sources."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

SOURCES = Path(__file__).parent / "src"
OUT = Path(__file__).parents[2] / "out" / "bench"
FLAGS = ("-std=gnu11", "-O2", "-Wall", "-Wextra")
PROGRAMS = {"engine": ("engine.c", "shapes.c"), "load": ("load.c", "answer.c", "verdict.c")}


class RigError(Exception):
    """The rig cannot measure; the text says why and what to do."""


@dataclass(frozen=True)
class Tools:
    """Paths of the two programs."""

    engine: Path
    load: Path


def compiler() -> str | None:
    """The C compiler's path: $CC, cc, gcc or clang, whichever comes first; None without one."""
    names = (os.environ.get("CC", ""), "cc", "gcc", "clang")
    return next((found for name in names if name and (found := shutil.which(name))), None)


def build(out: Path = OUT) -> Tools:
    """Both programs, compiled into a folder of `out` named by the sources' hash.

    Raises RigError without a C compiler, or with the compiler's own words when it fails.
    """
    cc = compiler()
    if cc is None:
        raise RigError("no C compiler (looked for $CC, cc, gcc, clang); on Debian or Ubuntu: apt install gcc libc6-dev")
    folder = out / f"bin-{_fingerprint(cc)}"
    folder.mkdir(parents=True, exist_ok=True)
    for name, files in PROGRAMS.items():
        if not (folder / name).exists():
            _compile(cc, files, folder / name)
    return Tools(folder / "engine", folder / "load")


def _fingerprint(cc: str) -> str:
    digest = hashlib.sha256(" ".join((cc, *FLAGS)).encode())
    for file in sorted(SOURCES.iterdir()):
        digest.update(file.name.encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()[:12]


def _compile(cc: str, files: tuple[str, ...], target: Path) -> None:
    part = target.with_suffix(f".{os.getpid()}")  # renamed when whole: two runs may compile at once
    command = [cc, *FLAGS, "-o", str(part), *(str(SOURCES / file) for file in files)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RigError(f"{' '.join(command)} failed:\n{done.stderr.strip()}")
    part.rename(target)
