"""The store's program in Lua, and two ways to let Valkey run it: as a function, or as a script where functions are forbidden.

Both are named by a hash of their text, so that replicas of an older and of a newer version run side by side on one store.
"""

from dataclasses import dataclass
from hashlib import sha1, sha256
from pathlib import Path

from lexora_router.state.program import Programs

_STORE = Path(__file__).with_name("store.lua")


@dataclass(frozen=True, slots=True)
class Way:
    """The commands that load it and call it."""

    load: tuple[bytes, ...]
    call: tuple[bytes, ...]


def text(programs: Programs) -> str:
    """The source: it defines `run(keys, arguments, call)`."""
    parts = [f"programs['{name}'] = (function()\n{kind.lua}\nend)()" for name, kind in sorted(programs.items())]
    return "\n".join(["local programs = {}", *parts, _STORE.read_text(encoding="utf-8")])


def ways(programs: Programs) -> tuple[Way, Way]:
    """The function, which the server keeps over a restart and passes on to its replicas, then the script."""
    source = text(programs)
    name = f"lexora_{sha256(source.encode()).hexdigest()[:16]}"
    entry = f"redis.register_function('{name}', function(keys, arguments) return run(keys, arguments, redis.call) end)"
    function = f"#!lua name={name}\n{source}\n{entry}\n".encode()
    script = f"#!lua\n{source}\nreturn run(KEYS, ARGV, redis.call)\n".encode()
    return (
        Way((b"FUNCTION", b"LOAD", function), (b"FCALL", name.encode())),
        Way((b"SCRIPT", b"LOAD", script), (b"EVALSHA", sha1(script, usedforsecurity=False).hexdigest().encode())),
    )
