"""What makes the imports of a serving process slow, left out: a thousand modules, for as long as the process lives."""

import gc
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def fast_imports() -> Iterator[None]:
    """Import inside what is kept until the process ends.

    Modules are no garbage: none is collected meanwhile, nor looked at later. Left out are rich and its lexers, which
    structlog loads to colour tracebacks, and pydantic's search for plug-ins in all installed distributions.
    """
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    hidden = "rich" not in sys.modules
    if hidden:
        sys.modules["rich"] = None  # type: ignore[assignment]  # so that its import fails
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
        if hidden:
            del sys.modules["rich"]
