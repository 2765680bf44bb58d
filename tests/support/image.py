"""The image of deploy/docker, built by buildah and started from its root: it takes no daemon and no registry."""

import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.process import REPOSITORY, Process

NAME, BASE = "localhost/lexora", "localhost/lexora-base"
NEEDED = ("buildah", "unshare", "/usr/bin/python3.11", "/usr/bin/strip")
needs_buildah = pytest.mark.skipif(
    not all(map(shutil.which, NEEDED)) or not Path("/usr/share/python-wheels").exists() or os.getuid() != 0,
    reason="needs root on Debian 12, and: apt-get install buildah binutils python3.11-venv",
)
# What the host would do: the root for reading only, and the user of the image.
_START = """
mount --bind "$0" "$0" && mount --rbind /dev "$0/dev" && mount -t proc proc "$0/proc" \
  && mount -t tmpfs tmpfs "$0/tmp" && mount -o remount,bind,ro "$0" \
  && exec chroot --userspec="$1" "$0" "${@:2}"
"""


@dataclass(frozen=True)
class Image:
    """A built image: its root on this machine, and its configuration as Docker has it."""

    root: Path
    config: Mapping[str, Any]

    def command(self, *arguments: str) -> list[str]:
        """Command line that runs the image's entry point, or another path of it, with these arguments."""
        entry = [] if arguments and arguments[0].startswith("/") else list(self.config["Entrypoint"])
        start = ["unshare", "--mount", "--propagation", "private", "bash", "-c", _START, str(self.root), self.config["User"]]
        return [*start, *entry, *arguments]

    def start(self, *arguments: str, env: Mapping[str, str] | None = None) -> Process:
        """A process of the image."""
        return Process(self.command(*arguments), env=self._variables(env), fresh=True)

    def run(self, *arguments: str, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        """The same, to its end."""
        command, variables = self.command(*arguments), {**os.environ, **self._variables(env)}
        return subprocess.run(command, env=variables, capture_output=True, text=True, check=False, timeout=60)

    def _variables(self, env: Mapping[str, str] | None) -> dict[str, str]:
        own = dict(line.split("=", 1) for line in self.config["Env"])
        return {**own, **(env or {}), "PATH": f"{own['PATH']}:{os.environ['PATH']}"}  # the second part starts it


def build(folder: Path) -> Image:
    """Build base and image; all that buildah stores is in `folder`."""
    storage = folder / "storage.conf"
    storage.write_text(f'[storage]\ndriver = "vfs"\ngraphroot = "{folder}/graph"\nrunroot = "{folder}/run"\n')
    env = {**os.environ, "CONTAINERS_STORAGE_CONF": str(storage), "BUILDAH_ISOLATION": "chroot"}

    def run(*command: str) -> str:
        done = subprocess.run(command, cwd=REPOSITORY, env=env, capture_output=True, text=True, check=False, timeout=400)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout.strip()

    run("sh", "deploy/docker/base.sh", BASE)
    run("make", "-s", "image", "ENGINE=buildah", f"IMAGE={NAME}", f"BASE={BASE}", "BUILD_OPTIONS=--volume /usr:/usr:ro")
    inspected = json.loads(run("buildah", "inspect", "--type", "image", NAME))
    return Image(Path(run("buildah", "mount", run("buildah", "from", NAME))), inspected["Docker"]["config"])


def unpacked(root: Path) -> int:
    """Bytes of all files below a root, each once."""
    seen: dict[tuple[int, int], int] = {}
    for folder, _, names in os.walk(root):
        for name in names:
            status = os.lstat(os.path.join(folder, name))
            seen[status.st_dev, status.st_ino] = status.st_size
    return sum(seen.values())
