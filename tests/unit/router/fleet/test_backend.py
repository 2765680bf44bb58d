import itertools
import time

import pytest
from tests.unit.router.engines.engine import make_backend
from tests.unit.router.support import make_call

from lexora_router.call import Timeouts
from lexora_router.config import Config
from lexora_router.discovery.discovery import Discovery
from lexora_router.errors import NoHealthyEndpoint
from lexora_router.fleet.backend import Backend, Conditions, Health, build_backends, combine

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


def discovering(*addresses: str) -> tuple[Backend, Conditions]:
    """A backend whose engines are in a file, which is not read here."""
    config = Config.model_validate({"routing": {"backends": {"main": {"discover": {"file": "engines.json"}}}}})
    conditions = Conditions()
    discovery = Discovery(config, None, {"main": addresses}, time.monotonic)
    backend = build_backends(config, time.monotonic, conditions=conditions, discovery=discovery)["main"]
    backend.take_over(conditions)
    return backend, conditions


def move(backend: Backend, conditions: Conditions, *addresses: str) -> None:
    assert backend.discovered is not None
    backend.discovered.addresses = addresses
    backend.move(conditions)


async def test_endpoints_that_stay_are_the_same_and_new_ones_have_to_show_that_they_answer() -> None:
    backend, conditions = discovering()
    assert (backend.endpoints, backend.health()) == ((), X)
    move(backend, conditions, "e:1", "e:2")
    one, two = backend.pool.endpoints
    assert (one.address, one.condition.healthy) == ("http://e:1", None), "the first ones have no others beside them"
    move(backend, conditions, "e:2", "e:3")
    same, three = backend.pool.endpoints
    assert same is two
    now = time.monotonic()
    assert not three.condition.available(now)
    three.condition.probed("", now, sure=False)
    assert three.condition.available(now)
    assert three.condition.weight(now) < two.condition.weight(now), "it begins slowly"


async def test_an_address_that_is_back_while_its_calls_run_has_them_counted() -> None:
    backend, conditions = discovering("e:1", "e:2")
    backend.endpoints[1].condition.in_flight = 3
    held = backend.endpoints[1].condition  # as a call's slot holds it
    move(backend, conditions, "e:1")
    move(backend, conditions, "e:1", "e:2")
    assert backend.endpoints[1].condition is held
    assert backend.endpoints[1].in_flight == 3


async def test_what_depends_on_the_number_of_endpoints_follows_it() -> None:
    """A share of failures opens the breaker of an only endpoint; beside others it is a case for ejection."""
    backend, conditions = discovering("e:1")
    assert backend.terms.rules.breaker.failure_share is not None
    move(backend, conditions, "e:1", "e:2")
    assert backend.terms.rules.breaker.failure_share is None
    move(backend, conditions, "e:2")
    assert backend.terms.rules.breaker.failure_share is not None


async def test_without_endpoints_calls_are_refused_with_the_reason() -> None:
    backend, conditions = discovering("e:1")
    move(backend, conditions)
    with pytest.raises(NoHealthyEndpoint, match=r"has no endpoint: file engines\.json is being looked up for the first time"):
        await backend.pool.admit(make_call())
    assert not backend.pool.forecast(make_call()).free
    backend.pool.judge()
    backend.pool.dispatch()


async def test_connections_to_addresses_that_are_gone_are_retired() -> None:
    backend, conditions = discovering("e:1", "e:2")
    origins = [backend.transport.origin(endpoint.base) for endpoint in backend.endpoints]
    move(backend, conditions, "e:2")
    assert backend.transport.origin(backend.endpoints[0].base) is origins[1]
    assert [origin._retired for origin in origins] == [True, False]
