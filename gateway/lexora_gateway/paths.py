"""What is said of a path or method that is not served: the path that was probably meant."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection

_SHOWN = 200
# Longer paths are no typing mistakes, and comparing them costs time.
_COMPARED = 100
_ALIKE = 0.85
# Names that other servers have for the same thing: Ollama, llama.cpp, Kubernetes' own.
_ELSEWHERE = {
    "/api/chat": "/v1/chat/completions",
    "/api/embed": "/v1/embeddings",
    "/api/embeddings": "/v1/embeddings",
    "/api/generate": "/v1/completions",
    "/api/tags": "/v1/models",
    "/completion": "/v1/completions",
    "/healthz": "/health",
    "/livez": "/health/live",
    "/ping": "/health/live",
    "/readyz": "/health/ready",
}

# What operators ask for; each may have a port of its own.
OF_OPERATORS = ("/stats", "/metrics", "/ui")
MOVED = "This is served at the port for operators (server.admin_port)."


def unknown_path(path: str, known: Collection[str]) -> str:
    """The message of a 404; `known` are the paths that are served."""
    shown = path if len(path) <= _SHOWN else path[:_SHOWN] + "..."
    meant = probably_meant(path, known)
    return f"Unknown path: {shown}. " + (f"Did you mean {meant}?" if meant else "GET / lists what is served.")


def probably_meant(path: str, known: Collection[str]) -> str | None:
    """The known path that differs by what stands before it, a lacking /v1, slashes, letters' case or a slip; else None."""
    if len(path) > _COMPARED:
        return None
    parts = [part for part in path.lower().split("/") if part]
    plain = "/" + "/".join(parts)
    if plain in _ELSEWHERE:
        return _ELSEWHERE[plain]
    for first in range(len(parts)):
        rest = "/" + "/".join(parts[first:])
        for candidate in (rest, "/v1" + rest):
            if candidate in known:
                return candidate
    return next(iter(get_close_matches(plain, known, 1, _ALIKE)), None)
