import asyncio

from prometheus_client import CollectorRegistry, generate_latest
from tests.support.clock import jumping
from tests.support.servers import metric

from lexora_router.telemetry.lag import INTERVAL_SECONDS, LoopLag


@jumping
async def test_the_lag_is_what_a_sleep_takes_longer_than_asked() -> None:
    registry = CollectorRegistry()
    extra = 0.0
    loop = asyncio.get_running_loop()
    task = asyncio.create_task(LoopLag(registry, lambda: loop.time() + extra).run())
    await asyncio.sleep(INTERVAL_SECONDS * 1.5)
    extra = 0.3  # something held the loop up
    await asyncio.sleep(INTERVAL_SECONDS)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    text = generate_latest(registry).decode()
    assert metric(text, "lexora_event_loop_lag_seconds_count") == 2
    assert metric(text, "lexora_event_loop_lag_seconds_bucket", le="0.25") == 1
    assert abs(metric(text, "lexora_event_loop_lag_seconds_sum") - 0.3) < 0.001
