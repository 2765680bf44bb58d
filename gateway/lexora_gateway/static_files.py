"""Pages that come whole from the gateway: their files, and what a browser may load for them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.staticfiles import StaticFiles

if TYPE_CHECKING:
    from pathlib import Path

    from fastapi import Response
    from starlette.types import Scope

# Everything comes from here and nothing is inline: a name of a model that is a script stays a name.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def headers_with(policy: str) -> dict[str, str]:
    """The headers of a page under a content security policy."""
    return {
        "content-security-policy": policy,
        "x-content-type-options": "nosniff",
        "referrer-policy": "no-referrer",
        "cache-control": "no-cache",
    }


class Files(StaticFiles):
    """A folder's files with a page's headers; `html`: index.html stands for the folder."""

    def __init__(self, folder: Path, headers: dict[str, str], *, html: bool = False) -> None:
        super().__init__(directory=folder, html=html)
        self._headers = headers

    async def get_response(self, path: str, scope: Scope) -> Response:
        """A file, or HTTPException (404, 405)."""
        response = await super().get_response(path, scope)
        response.headers.update(self._headers)
        return response
