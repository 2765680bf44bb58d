import itertools
import time

import pytest
from tests.unit.router.engines.engine import make_backend

from lexora_router.call import Timeouts
from lexora_router.config import Config
from lexora_router.fleet.backend import Health, build_backends, combine

H, D, U, X = Health.HEALTHY, Health.DEGRADED, Health.UNHEALTHY, Health.UNKNOWN


@pytest.mark.parametrize(
    ("states", "together"),
    [
        ([], X),
        ([X], X),
        ([H], H),
        ([U], U),
        ([D], D),
        ([H, X], H),
        ([U, X], U),
        ([H, U], D),
        ([H, D], D),
        ([U, U], U),
        ([D, U], D),
    ],
)
def test_states_come_to(states: list[Health], together: Health) -> None:
    assert {combine(list(order)) for order in itertools.permutations(states)} == {together}


@pytest.mark.parametrize(
    ("states", "together"), [((None, None), X), ((True, None), H), ((True, True), H), ((True, False), D), ((False, False), U)]
)
async def test_a_backend_is_what_its_endpoints_come_to(states: tuple[bool | None, ...], together: Health) -> None:
    backend = make_backend("", urls=["http://e:1", "http://e:2"])
    for endpoint, state in zip(backend.endpoints, states, strict=True):
        endpoint.condition.healthy = state
    assert backend.health() is together


async def test_a_target_has_the_engine_s_name_and_the_pool_every_endpoint() -> None:
    backend = make_backend("", urls=["http://e:1", "http://e:2/"], model_mapping={"gpt": "gpt-0125"}, timeout=7, idle_timeout=3)
    target = backend.target("gpt")
    assert (target.backend, target.model) == ("main", "gpt-0125")
    assert [endpoint.address for endpoint in backend.pool.endpoints] == ["http://e:1", "http://e:2"]
    assert target.timeouts == Timeouts(first_token=7, idle=3, total=3600)
    assert backend.target("other").model == "other"


async def test_without_routing_there_is_one_backend() -> None:
    backends = build_backends(Config.model_validate({"vllm": {"url": "http://e:9"}}), time.monotonic)
    [(name, backend)] = backends.items()
    assert name == "vllm"
    assert [endpoint.address for endpoint in backend.endpoints] == ["http://e:9"]


async def test_backends_share_no_connections() -> None:
    config = Config.model_validate({"routing": {"backends": {"a": {"url": "http://e:1"}, "b": {"url": "http://e:1"}}}})
    a, b = build_backends(config, time.monotonic).values()
    assert a.transport is not b.transport
