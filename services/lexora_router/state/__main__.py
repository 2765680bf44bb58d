"""`python -m lexora_router.state PATH PARENT`: the coordinator of the workers of one machine, started by their supervisor."""

import contextlib
import os
import sys
from pathlib import Path

from lexora_router.state.coordinator import coordinate

if __name__ == "__main__":
    if os.getppid() == int(sys.argv[2]):  # which may have ended meanwhile
        coordinate(sys.argv[1])
    with contextlib.suppress(OSError):
        Path(sys.argv[1]).parent.rmdir()  # which is its own, unless something else has come there
