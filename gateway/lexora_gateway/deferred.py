"""The facade without FastAPI at first, whose import is a quarter of a start: connections serve calls without it."""

from __future__ import annotations

import asyncio
from threading import Lock
from typing import TYPE_CHECKING, Any, Unpack

from lexora_gateway.parts import Settings, Surface, parts_of

if TYPE_CHECKING:
    from lexora_contract.port import RouterPort
    from lexora_gateway.api_route import ApiRoute
    from lexora_gateway.asgi_types import Receive, Scope, Send


class DeferredApp:
    """An ASGI application as `create_app` makes it, made by `build`, or when the first request needs it."""

    def __init__(self, router: RouterPort, **settings: Unpack[Settings]) -> None:
        self._parts = parts_of(router, **settings)
        self._making = Lock()
        self._app: Any = None

    def direct_routes(self) -> dict[bytes, ApiRoute]:
        """What a server may serve below ASGI, by path."""
        calls = self._parts.surface is not Surface.OPERATORS
        return {path.encode(): each for path, each in self._parts.routes.items()} if calls else {}

    def build(self) -> None:
        """Make the application, in any thread; takes some tenths of a second, and once only."""
        with self._making:
            if self._app is None:
                from lexora_gateway.app import app_of  # noqa: PLC0415 - start-up time

                self._app = app_of(self._parts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI entry point."""
        if self._app is None:
            await asyncio.to_thread(self.build)
        await self._app(scope, receive, send)
