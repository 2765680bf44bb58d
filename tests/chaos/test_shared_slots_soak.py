"""Slots over three gateways at length, with 200 clients: make soak prints the figures."""

from pathlib import Path

import pytest

from tests.chaos.test_shared_slots import HIGH, LOW, SLOTS, Clients, House
from tests.support.timeline import jain

SECONDS = 15.0


def line(name: str, *found: object) -> None:
    print(f"{name:<44}", *found)


@pytest.mark.soak
@pytest.mark.timeout(600)
@pytest.mark.parametrize("milliseconds", [50, 500])
async def test_two_hundred_clients(request: pytest.FixtureRequest, tmp_path: Path, milliseconds: int) -> None:
    if "soak" not in request.config.getoption("-m"):
        pytest.skip("make soak")
    for replicas in (1, 3):
        (tmp_path / str(replicas)).mkdir()
        house = House(tmp_path / str(replicas), replicas, "--ttft-ms", str(milliseconds))
        try:
            for numbers in ((67, 67, 66), (160, 20, 20)):
                clients = [Clients(at % replicas, f"tenant-{at}", number) for at, number in enumerate(numbers)]
                seen = await house.load(clients, SECONDS)
                fair = jain(list(seen.served.values()))
                line(
                    f"{milliseconds} ms, {replicas} replicas, {numbers} clients:",
                    f"most {seen.most}, used {100 * seen.utilisation:.1f} %, Jain {fair:.3f}, {seen.calls} calls",
                )
                assert seen.most <= SLOTS
                assert fair > 0.95
        finally:
            house.close()


@pytest.mark.soak
@pytest.mark.timeout(600)
@pytest.mark.parametrize("milliseconds", [100, 500])
async def test_high_priority_at_one_and_at_two_replicas(
    request: pytest.FixtureRequest, tmp_path: Path, milliseconds: int
) -> None:
    if "soak" not in request.config.getoption("-m"):
        pytest.skip("make soak")
    p99 = []
    for replicas in (1, 2):
        (tmp_path / str(replicas)).mkdir()
        house = House(tmp_path / str(replicas), replicas, "--ttft-ms", str(milliseconds))
        try:
            low = [Clients(0, "low", 30, LOW), Clients(replicas - 1, "low", 30, LOW)]
            seen = await house.load([Clients(0, "high", 4, HIGH, 0.05), *low], 2 * SECONDS)
        finally:
            house.close()
        p99.append(seen.p99("high"))
        waits = sorted(seen.waits["high"])
        line(
            f"{milliseconds} ms, high at 1 of {replicas} replicas:",
            f"p50 {1000 * waits[len(waits) // 2]:.1f} ms, p99 {1000 * p99[-1]:.1f} ms of {len(waits)};",
            f"low p99 {1000 * seen.p99('low'):.0f} ms, most {seen.most}, used {100 * seen.utilisation:.1f} %",
        )
    line(f"{milliseconds} ms, two replicas to one:", f"{p99[1] / p99[0]:.2f}")
