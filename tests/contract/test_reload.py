"""The rpc Reload over the wire, and what GetStats says of it."""

import asyncio
from pathlib import Path

import grpc
import pytest
import yaml
from google.rpc.error_details_pb2 import ErrorInfo

from lexora.v1 import reload_pb2, stats_pb2
from lexora.v1.admin_pb2_grpc import AdminServiceStub
from lexora_router.process.app import RouterApp
from lexora_router.process.reload import Reloader
from lexora_router.process.source import ConfigSource
from tests.support.links import channel, status_in
from tests.support.loop_engine import LoopEngine


def reason(error: grpc.aio.AioRpcError) -> str:
    info = ErrorInfo()
    assert any(detail.Unpack(info) for detail in status_in(error).details)
    return str(info.reason)


async def test_a_reload_is_answered_and_told(engine: LoopEngine, tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    wanted = {"vllm": {"url": engine.url}, "reload": {"watch": False}}
    file.write_text(yaml.safe_dump(wanted))
    source = ConfigSource(str(file), {}, {})
    app = RouterApp(source.load().config)
    reloader = Reloader(app, source, asyncio.Event())
    port = await app.start("127.0.0.1", 0)
    reloader.start()
    async with channel(f"127.0.0.1:{port}") as wire:
        stub = AdminServiceStub(wire)
        assert not (await stub.GetStats(stats_pb2.GetStatsRequest())).HasField("last_reload")
        file.write_text(yaml.safe_dump(wanted | {"server": {"port": 9}, "retry": {"max_retries": 0}}))
        report = (await stub.Reload(reload_pb2.ReloadRequest())).report
        assert report.finish_time.seconds > 0
        report.ClearField("finish_time")
        assert report == reload_pb2.ReloadReport(
            result=reload_pb2.RELOAD_RESULT_APPLIED,
            trigger=reload_pb2.RELOAD_TRIGGER_RPC,
            changed_keys=["retry.max_retries", "server.port"],
            keys_needing_restart=["server.port"],
            good_reloads=1,
        )
        file.write_text("server: {prot: 1}\nloging: {}\n")
        report = (await stub.Reload(reload_pb2.ReloadRequest())).report
        assert (report.result, len(report.problems)) == (reload_pb2.RELOAD_RESULT_REFUSED, 2)
        assert (report.good_reloads, report.bad_reloads) == (1, 1)
        assert (await stub.GetStats(stats_pb2.GetStatsRequest())).last_reload == report
        await app.drain()
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.Reload(reload_pb2.ReloadRequest())
        assert reason(refused.value) == "DRAINING"
    await reloader.close()
    await app.stop()


async def test_a_router_without_a_source_cannot_reload(router: tuple[RouterApp, str]) -> None:
    async with channel(router[1]) as wire:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await AdminServiceStub(wire).Reload(reload_pb2.ReloadRequest())
    assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert reason(refused.value) == "UNIMPLEMENTED"
