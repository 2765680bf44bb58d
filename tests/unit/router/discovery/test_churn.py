"""Pods come and go for months: what is kept of those that are gone is nothing."""

import asyncio
import gc
from pathlib import Path

from lexora_router.config import Config
from lexora_router.process.app import RouterApp


async def test_addresses_that_are_gone_leave_nothing_behind(tmp_path: Path) -> None:
    backends = {
        "main": {"discover": {"file": str(tmp_path / "engines.json")}, "concurrency": "auto"},
        "other": {"url": "http://127.0.0.1:1"},
    }
    app = RouterApp(Config.model_validate({"routing": {"backends": backends}}))
    await app.start("127.0.0.1", 0)
    try:
        backend = app._assembly.backends["main"]
        discovered = backend.discovered
        assert discovered is not None
        await discovered.stop()  # this test is the source
        await asyncio.sleep(0)
        tasks = len(asyncio.all_tasks())
        for number in range(300):
            discovered.addresses = tuple(f"127.{number // 250}.{number % 250}.{host}:9" for host in range(1, 4))
            discovered.changed()
            await asyncio.sleep(0)
        assert [endpoint.address for endpoint in backend.endpoints] == [f"http://127.1.49.{host}:9" for host in range(1, 4)]
        assert len(asyncio.all_tasks()) < tasks + 100, "a probe and a scrape for each of 3, and not of 900"
        discovered.addresses = ()
        discovered.changed()
        async with asyncio.timeout(5):  # a listing that is under way still holds the last ones
            while len(app._assembly.conditions) > 1:
                await asyncio.sleep(0.02)
                gc.collect()
        assert len(backend.transport._origins) == 0
        assert len(backend.transport._leaving) <= 3
    finally:
        await app.stop()
