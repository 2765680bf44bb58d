"""`python -m tests.support.watched` is `lexora`, in a process that writes down at SIGUSR1 which tasks it has."""

import asyncio
import gc
import json
import os
import re
import signal
from collections import Counter
from pathlib import Path
from typing import Any

from lexora_gateway import parts
from lexora_gateway.http.client_timeouts import BODY_SILENCE_SECONDS, Patience
from tests.support.process import REPOSITORY, python
from tests.support.servers import Gateway

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class WatchedGateway(Gateway):
    """A gateway whose inside can be looked at, and whose bound on silence in a body can be short."""

    def __init__(self, config: dict[str, Any], folder: Path, *, body_silence: float = BODY_SILENCE_SECONDS) -> None:
        # It runs elsewhere, and must find the tests.
        paths = os.pathsep.join(filter(None, (os.environ.get("PYTHONPATH"), str(REPOSITORY))))
        env = {"PYTHONPATH": paths, "BODY_SILENCE": str(body_silence)}
        super().__init__(config, folder, env=env, command=python("tests.support.watched"))

    def tasks(self) -> Counter[str]:
        """The tasks that are not done, by the names of their coroutines."""
        before = len(re.findall("TASKS ", self.output))
        self.signal(signal.SIGUSR1)
        found = self.wait_for(rf"(?s)(?:TASKS .*){{{before}}}TASKS (\{{[^\n]*\}})\n", 5.0)
        return Counter(json.loads(found.group(1)))

    def sockets(self) -> int:
        """Sockets that are open, listening ones included."""
        return sum(_target(fd).startswith("socket:") for fd in Path(f"/proc/{self.pid}/fd").iterdir())

    def resident(self) -> int:
        """Resident memory, in bytes."""
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * PAGE_BYTES


def _target(fd: Path) -> str:
    try:
        return str(fd.readlink())
    except FileNotFoundError:
        return ""


def _tell(*_: object) -> None:
    tasks = (each for each in gc.get_objects() if isinstance(each, asyncio.Task) and not each.done())
    names = Counter(getattr(task.get_coro(), "__qualname__", "?") for task in tasks)
    os.write(1, f"\nTASKS {json.dumps(names)}\n".encode())


if __name__ == "__main__":
    from lexora_cli.main import main

    parts.PATIENCE = Patience(body=float(os.environ["BODY_SILENCE"]))
    signal.signal(signal.SIGUSR1, _tell)
    main()
