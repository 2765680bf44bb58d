"""One HTTP request, read whole."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import parse_qsl


@dataclass(slots=True)
class Request:
    """Header names are lower case; a repeated header is joined by ", "."""

    method: str
    path: str
    query: str
    headers: dict[str, str]
    body: bytes
    http_version: str
    keep_alive: bool

    def parameters(self) -> dict[str, str]:
        """Return the query's parameters, the last one of each name."""
        return dict(parse_qsl(self.query))
