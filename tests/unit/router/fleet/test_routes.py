import time
from collections.abc import Mapping
from typing import Any, cast

import pytest

from lexora_router.choosing.decide.ranking import Offer
from lexora_router.config import Config
from lexora_router.errors import InvalidRequest, ModelNotFound
from lexora_router.fleet.backend import build_backends
from lexora_router.fleet.catalogue import Catalogue, ListedModel
from lexora_router.fleet.routes import DISCOVERY_INTERVAL, ModelRoutes, PinnedRoutes, RouteRule


class FakeCatalogue:
    """Lists what it is told to; `next_listings` take effect when somebody asks for a fresh one."""

    def __init__(self, **listings: list[str]) -> None:
        self.listings = listings
        self.next_listings: dict[str, list[str]] = {}
        self.max_ages: list[float | None] = []
        self.questions = 0

    def listed(self, backend: str) -> Mapping[str, ListedModel]:
        return {name: ListedModel(name, b'{"id":"%s"}' % name.encode(), 4096) for name in self.listings.get(backend, [])}

    def listers(self, model: str) -> list[str]:
        self.questions += 1
        return [name for name, models in self.listings.items() if model in models]

    async def fresh(self, max_age: float | None = None) -> None:
        self.max_ages.append(max_age)
        self.listings |= self.next_listings


def routes(routing: dict[str, Any], **listings: list[str]) -> tuple[ModelRoutes, FakeCatalogue]:
    for number, backend in enumerate(routing.get("backends", {}).values()):
        backend.setdefault("url", f"http://e:{number + 1}")
    config = Config.model_validate({"routing": routing})
    catalogue = FakeCatalogue(**listings)
    return ModelRoutes(config, build_backends(config, time.monotonic), cast("Catalogue", catalogue)), catalogue


def two(**more: Any) -> dict[str, Any]:
    """`a` has configured models, `b` has none."""
    return {"backends": {"a": {"models": ["a1", "both"], "model_mapping": {"a1": "engine-a1"}}, "b": {}}} | more


def where(found: ModelRoutes, model: str) -> tuple[str, str] | None:
    targets = found.find(model)
    return (targets[0].backend, targets[0].model) if targets else None


async def test_a_configured_model_goes_to_its_backend_under_the_engine_s_name() -> None:
    found, _ = routes(two(), b=["a1", "both"])
    assert where(found, "a1") == ("a", "engine-a1")
    assert where(found, "both") == ("a", "both")


async def test_of_two_backends_that_configure_a_model_the_first_has_it() -> None:
    found, _ = routes({"backends": {"x": {"models": ["m"]}, "y": {"models": ["m"]}}})
    assert where(found, "m") == ("x", "m")


async def test_a_listed_model_goes_to_who_lists_it() -> None:
    found, _ = routes(two(), a=["a-extra"], b=["b1"])
    assert where(found, "b1") == ("b", "b1")
    assert where(found, "a-extra") == ("a", "a-extra")
    assert where(found, "ghost") is None


async def test_everything_else_goes_to_the_default_backend() -> None:
    found, _ = routes(two(default_backend="a"), b=["b1"])
    assert where(found, "ghost") == ("a", "ghost")
    assert where(found, "b1") == ("b", "b1")


async def test_strict_models_shut_out_what_is_neither_configured_nor_listed_by_an_open_backend() -> None:
    found, _ = routes(two(default_backend="a", strict_models=True), a=["a-extra"], b=["b1"])
    assert where(found, "a1") == ("a", "engine-a1")
    assert where(found, "b1") == ("b", "b1")
    assert where(found, "a-extra") is None
    assert where(found, "ghost") is None


async def test_an_alias_names_another_model_wherever_that_goes() -> None:
    aliases = {"fast": "a1", "listed": "b1", "far": "elsewhere"}
    found, _ = routes(two(aliases=aliases, default_backend="a"), b=["b1"])
    assert where(found, "fast") == ("a", "engine-a1")
    assert where(found, "listed") == ("b", "b1")
    assert where(found, "far") == ("a", "elsewhere")


async def test_an_alias_of_nothing_is_nothing() -> None:
    found, _ = routes(two(aliases={"fast": "ghost"}))
    assert where(found, "fast") is None


async def test_single_backend_mode_takes_every_model() -> None:
    found, _ = routes({})
    assert where(found, "whatever") == ("vllm", "whatever")
    assert where(found, "") == ("vllm", "")


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"default_backend": "a"}, ("a", "engine-a1")),
        ({"default_backend": "b"}, ("b", "")),
        ({"default_model_for_unknown_task": "both"}, ("a", "both")),
        ({"default_backend": "b", "default_model_for_unknown_task": "both"}, ("a", "both")),
    ],
)
async def test_a_call_that_names_no_model(more: dict[str, Any], expected: tuple[str, str]) -> None:
    found, _ = routes(two(**more))
    assert where(found, "") == expected


async def test_no_model_and_no_default_is_the_client_s_mistake() -> None:
    found, _ = routes(two())
    with pytest.raises(InvalidRequest) as raised:
        found.find("")
    assert raised.value.param == "model"


async def test_an_unknown_model_makes_the_router_ask_again() -> None:
    found, catalogue = routes(two())
    catalogue.next_listings = {"b": ["new"]}
    assert (await found.discover("new"))[0].backend == "b"
    assert catalogue.max_ages == [DISCOVERY_INTERVAL]


async def test_a_model_that_is_nowhere() -> None:
    found, _ = routes(two())
    with pytest.raises(ModelNotFound):
        await found.discover("ghost")


async def test_a_call_costs_the_same_with_many_backends() -> None:
    """A model that none of them has is looked up once, not at each of them."""
    found, catalogue = routes({"backends": {f"b{number}": {} for number in range(200)}, "default_backend": "b0"})
    catalogue.listed = None  # type: ignore[assignment,method-assign]
    assert where(found, "new") == ("b0", "new")
    assert (found.label("new"), catalogue.questions) == ("other", 2)


async def test_labels_are_names_that_are_known() -> None:
    found, _ = routes(two(aliases={"fast": "a1"}, default_backend="a"), b=["b1"])
    assert [found.label(model) for model in ("a1", "fast", "b1", "ghost", "")] == ["a1", "fast", "b1", "other", "other"]


@pytest.mark.parametrize(
    ("more", "listings", "expected"),
    [
        ({}, {}, ""),
        ({"default_backend": "a"}, {}, "a1"),
        ({"default_backend": "b"}, {"b": ["b1", "b2"]}, "b1"),
        ({"default_backend": "b"}, {}, ""),
        ({"default_model_for_unknown_task": "both"}, {}, "both"),
    ],
)
async def test_the_default_model(more: dict[str, Any], listings: dict[str, list[str]], expected: str) -> None:
    found, _ = routes(two(**more), **listings)
    assert await found.default_model() == expected


async def test_the_list_has_exactly_what_can_be_asked() -> None:
    backends = {
        "a": {"models": [{"name": "a1", "max_model_len": 99}, "both"], "model_mapping": {"a1": "engine-a1"}},
        "b": {},
    }
    found, _ = routes(
        {"backends": backends, "aliases": {"fast": "a1", "dead": "ghost", "both": "a1"}},
        a=["engine-a1", "both"],
        b=["b1", "both"],
    )
    models = await found.models()
    assert [(m.backend.name, m.id, m.alias_of) for m in models] == [
        ("a", "a1", ""),
        ("a", "both", ""),
        ("a", "engine-a1", ""),
        ("a", "fast", "a1"),
        ("b", "b1", ""),
    ]
    assert [m.max_model_len for m in models] == [99, 4096, 4096, 99, 4096]
    assert [m.entry for m in models] == [b"", b'{"id":"both"}', b'{"id":"engine-a1"}', b"", b'{"id":"b1"}']
    assert all(found.find(model.id) for model in models)


async def test_a_model_is_told_of_where_its_calls_go_though_an_earlier_backend_lists_it() -> None:
    models = [{"name": "m", "capabilities": ["embedding"]}]
    found, _ = routes({"backends": {"a": {}, "b": {"models": models}}}, a=["m"], b=["m"])
    (model,) = await found.models()
    assert model.configured is not None
    assert (model.backend.name, model.configured.capabilities) == ("b", ("embedding",))
    assert where(found, "m") == ("b", "m")


async def test_the_list_of_a_strict_router_has_configured_models_only() -> None:
    found, _ = routes(two(strict_models=True), a=["a-extra"], b=["b1"])
    assert [model.id for model in await found.models()] == ["a1", "both", "b1"]


# -- which rule decides

NAMES = ["", "a1", "both", "b1", "ghost", "fast", "away"]
ALIASES = {"fast": "a1", "away": "ghost"}


@pytest.mark.parametrize("more", [{}, {"default_backend": "a"}, {"default_backend": "a", "strict_models": True}])
async def test_the_rule_s_targets_are_those_that_are_found(more: dict[str, Any]) -> None:
    found, _ = routes(two(aliases=ALIASES, **more), b=["b1"])
    for name in NAMES if more else NAMES[1:]:
        assert found.rule(name).targets == found.find(name), name


@pytest.mark.parametrize(
    ("model", "rule", "by", "own"),
    [
        ("a1", RouteRule.CONFIGURED, RouteRule.CONFIGURED, "a1"),
        ("b1", RouteRule.LISTED, RouteRule.LISTED, "b1"),
        ("ghost", RouteRule.DEFAULT_BACKEND, RouteRule.DEFAULT_BACKEND, "ghost"),
        ("fast", RouteRule.ALIAS, RouteRule.CONFIGURED, "a1"),
        ("away", RouteRule.ALIAS, RouteRule.DEFAULT_BACKEND, "ghost"),
        ("", RouteRule.DEFAULT_MODEL, RouteRule.CONFIGURED, "a1"),
    ],
)
async def test_which_rule_leads_to_them(model: str, rule: RouteRule, by: RouteRule, own: str) -> None:
    found, _ = routes(two(default_backend="a", default_model_for_unknown_task="fast", aliases=ALIASES), b=["b1"])
    ruling = found.rule(model)
    assert (ruling.rule, ruling.by, ruling.model) == (rule, by, own)
    assert ruling.targets


async def test_no_rule_leads_to_what_nobody_serves() -> None:
    found, _ = routes(two(aliases=ALIASES))
    assert (found.rule("ghost").rule, found.rule("ghost").targets) == (RouteRule.NONE, ())
    assert (found.rule("away").rule, found.rule("away").by, found.rule("away").targets) == (RouteRule.ALIAS, RouteRule.NONE, ())


async def test_a_call_without_a_model_may_go_to_a_default_backend_that_knows_none() -> None:
    found, _ = routes({"default_backend": "a", "backends": {"a": {}}})
    assert found.rule("").rule is RouteRule.DEFAULT_BACKEND
    assert where(found, "") == ("a", "")


# -- what may be recommended


def offered(offer: Offer | None) -> tuple[str, tuple[str, ...], bool] | None:
    return None if offer is None else (offer.model, offer.capabilities, offer.available)


def skilled() -> dict[str, Any]:
    models = [{"name": "coder", "capabilities": ["code"]}, "plain"]
    return {"backends": {"a": {"models": models}, "b": {"models": ["plain"]}}, "aliases": {"c": "coder", "l": "listed"}}


async def test_the_configured_models_are_offered_in_their_order() -> None:
    found, _ = routes(skilled(), a=["listed"])
    assert [offered(offer) for offer in found.offers()] == [("coder", ("code",), True), ("plain", ("general",), True)]


async def test_aliases_and_listed_models_can_be_named_and_nothing_else() -> None:
    found, _ = routes(skilled() | {"default_backend": "a"}, a=["listed"])
    assert offered(found.offer("coder")) == ("coder", ("code",), True)
    assert offered(found.offer("c")) == ("c", ("code",), True)
    assert offered(found.offer("l")) == ("l", ("general",), True)
    assert offered(found.offer("listed")) == ("listed", ("general",), True)
    assert found.offer("ghost") is None
    assert found.takes("ghost"), "by the default backend"
    assert not routes(skilled())[0].takes("ghost")


async def test_a_model_whose_endpoints_take_no_calls_is_not_available() -> None:
    found, _ = routes({"backends": {"a": {"models": ["m"], "url": None, "urls": ["http://e:1", "http://e:2"]}}})
    one, two = found._backends["a"].endpoints
    one.condition.healthy = False
    assert [offer.available for offer in found.offers()] == [True]
    two.condition.healthy = False
    assert [offer.available for offer in found.offers()] == [False]
    assert offered(found.offer("m")) == ("m", ("general",), False)


async def test_a_model_can_be_pinned_to_a_backend() -> None:
    found, _ = routes(two(default_backend="a") | {"aliases": {"fast": "a1"}})
    pinned = PinnedRoutes(found, {"a1": "b"})
    assert [(target.backend, target.model) for target in pinned.find("a1")] == [("b", "a1")]
    assert [(target.backend, target.model) for target in pinned.find("both")] == [("a", "both")]
    assert await pinned.discover("new") == found.find("new")
