import asyncio
import json
import signal
import sys

import httpx
import pytest

from lexora_gateway import __main__ as command


async def test_the_command_serves_and_stops() -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "lexora_gateway", "--router", "127.0.0.1:1", "--host", "127.0.0.1", "--port", "0"),
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        line = (await asyncio.wait_for(process.stdout.readline(), 20)).decode()
        assert line.startswith("serving on http://127.0.0.1:")
        address = line.removeprefix("serving on ").strip()
        async with httpx.AsyncClient(base_url=address) as http:
            assert (await http.get("/health/live")).status_code == 200
            assert (await http.get("/health/ready")).status_code == 503
            assert (await http.get("/v1/models")).status_code == 503
            said = json.loads(await asyncio.wait_for(process.stdout.readline(), 10))
            assert (said["event"], said["level"]) == ("router_unreachable", "warning")
            assert "python_info" in (await http.get("/metrics")).text
            head = await http.get("/health/live", headers={"x-long": "y" * 70_000})
            assert head.status_code == 431
    finally:
        process.send_signal(signal.SIGTERM)
        code = await asyncio.wait_for(process.wait(), 10)
    assert code in (0, -signal.SIGTERM)


def test_the_router_must_be_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command.main([])
    assert "--router" in capsys.readouterr().err
