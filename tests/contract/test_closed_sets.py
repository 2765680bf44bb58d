"""What the contract calls closed sets is what the router has."""

from asyncio import CancelledError
from typing import get_args

import pytest

from lexora.v1.errors_pb2 import ErrorReason
from lexora.v1.explain_pb2 import RouteRule
from lexora.v1.health_pb2 import BackendStatus, BreakerState
from lexora.v1.models_pb2 import BackendType
from lexora.v1.receipt_pb2 import Classifier
from lexora.v1.reload_pb2 import ReloadResult
from lexora.v1.stats_pb2 import Rejections, WastedTokens
from lexora_contract.answer import Receipt
from lexora_contract.enums import word
from lexora_contract.reasons import REASONS
from lexora_router.choosing.decide.ranking import DEFAULT
from lexora_router.choosing.stages import ByExample, ByModel, ByRules
from lexora_router.config.engines import BackendConfig
from lexora_router.errors import Draining
from lexora_router.fleet.backend import Health
from lexora_router.fleet.routes import RouteRule as Rule
from lexora_router.layers.observe import CLIENT_GONE
from lexora_router.policy.breaker import State
from lexora_router.telemetry.account import wasted
from lexora_router.telemetry.reloads import Result
from tests.unit.router.telemetry.test_account import REJECTIONS


def words(enum: object) -> set[str]:
    return {word(enum, number) for number in enum.values() if number}  # type: ignore[attr-defined]


CLOSED = {
    "reasons": (ErrorReason, {reason.lower() for reason in REASONS}),
    "rules": (RouteRule, set(Rule)),
    "breaker states": (BreakerState, {state.name.lower() for state in State}),
    "reload results": (ReloadResult, set(Result)),
    "classifiers": (Classifier, {ByRules.name, ByExample.name, ByModel.name, DEFAULT}),
    "backend states": (BackendStatus, {health.name.lower() for health in Health} - {"unknown"}),
}


@pytest.mark.parametrize(("enum", "own"), CLOSED.values(), ids=CLOSED.keys())
def test_the_contract_names_them_all(enum: object, own: set[str]) -> None:
    assert words(enum) == own


def test_every_configurable_type_of_backend_has_a_value() -> None:
    assert words(BackendType) >= set(get_args(BackendConfig.model_fields["type"].annotation))


def test_every_kind_of_refusal_and_of_waste_has_a_field() -> None:
    assert set(REJECTIONS) == set(Rejections.DESCRIPTOR.fields_by_name)
    receipt = Receipt(events=2, lost_tokens=1)
    found = wasted(receipt, 502, Draining("x")) | wasted(receipt, CLIENT_GONE, CancelledError())
    assert set(found) == set(WastedTokens.DESCRIPTOR.fields_by_name)
