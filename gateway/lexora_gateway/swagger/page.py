"""GET /docs: Swagger UI over /openapi.json. `static/vendor/swagger-ui` is of the npm package swagger-ui-dist 5.35.0."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from fastapi.responses import FileResponse, RedirectResponse

from lexora_gateway.static_files import POLICY, Files, headers_with

if TYPE_CHECKING:
    from fastapi import FastAPI, Response

FILES = Path(__file__).parent / "static"
# Swagger UI writes styles into its elements.
_HEADERS = headers_with(POLICY.replace("style-src 'self'", "style-src 'self' 'unsafe-inline'"))


class Documentation:
    """The page. Its links are relative, so that a proxy may serve it under another path."""

    def add_to(self, app: FastAPI) -> None:
        """Register the routes."""
        app.add_api_route("/docs", self.page, methods=["GET"], include_in_schema=False)
        app.add_api_route("/docs/", self.back, methods=["GET"], include_in_schema=False)
        app.mount("/docs", Files(FILES, _HEADERS), name="docs")

    async def page(self) -> Response:
        """The page itself."""
        return FileResponse(FILES / "index.html", headers=_HEADERS)

    async def back(self) -> Response:
        """To the page, whose links would lead elsewhere from here."""
        return RedirectResponse("../docs", headers=_HEADERS)
