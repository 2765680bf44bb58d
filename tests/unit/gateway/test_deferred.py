"""The application that is made when it is needed."""

import asyncio
import subprocess
import sys
from typing import cast

import httpx
import pytest
from fastapi import FastAPI

from lexora_contract.port import RouterPort
from lexora_gateway import DeferredApp
from lexora_gateway import app as module
from lexora_gateway.app import create_app
from lexora_gateway.parts import Parts, Settings

SETTINGS: Settings = {"version": "1.2.3", "max_body_bytes": 1, "metrics": lambda _: (b"up 1\n", "text/plain")}
NO_ROUTER = cast("RouterPort", None)


async def test_it_is_made_once_for_all_that_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Parts] = []
    app_of = module.app_of

    def counted(parts: Parts) -> FastAPI:
        made.append(parts)
        return app_of(parts)

    monkeypatch.setattr(module, "app_of", counted)
    app = DeferredApp(NO_ROUTER, **SETTINGS)
    assert made == []
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://gateway") as client:
        answers = await asyncio.gather(*(client.get("/health/live") for _ in range(5)))
    assert {(answer.status_code, answer.text) for answer in answers} == {(200, '{"status":"alive"}')}
    app.build()
    assert len(made) == 1


def test_connections_serve_the_same_paths_before_it_is_made() -> None:
    whole = create_app(NO_ROUTER, **SETTINGS)
    assert isinstance(whole, module.GatewayApp)
    assert DeferredApp(NO_ROUTER, **SETTINGS).direct_routes().keys() == whole.direct_routes().keys()


@pytest.mark.parametrize("process", ["serve_process", "gateway_process"])
def test_a_serving_process_listens_before_it_has_fastapi(process: str) -> None:
    code = f"import sys, lexora_cli.{process}; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "lexora_gateway.http.protocol" in loaded
    assert not {"fastapi", "starlette"} & set(loaded)
