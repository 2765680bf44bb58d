"""Explanations are the same in every way, and agree with what then happens."""

import pytest

from lexora.v1 import explain_pb2
from lexora.v1.call_pb2 import Call
from lexora.v1.explain_pb2 import ExplainRequest, ExplainResponse
from lexora.v1.stats_pb2 import GetStatsRequest
from tests.contract.messages import FORMS, ID, OPTIONS, answer, raw_call, unary
from tests.support.links import Link
from tests.support.loop_engine import LoopEngine


async def explained(link: Link, request: ExplainRequest, **context: float) -> ExplainResponse:
    found = (await link.ask("explain", request, **context)).only
    assert isinstance(found, ExplainResponse)
    return found


@pytest.mark.parametrize("form", FORMS)
async def test_a_call_goes_where_the_explanation_says(link: Link, engine: LoopEngine, form: str) -> None:
    found = await explained(link, ExplainRequest(call=Call(options=OPTIONS, **FORMS[form])))
    assert engine.requests == []
    engine.answer = answer()
    receipt = (await link.generate(unary(**FORMS[form]))).only.receipt
    (target,) = found.targets
    assert (found.verdict, found.tenant.user) == (explain_pb2.VERDICT_DISPATCH, OPTIONS.user)
    assert (target.backend, target.model, target.endpoints[0].address) == (receipt.backend, receipt.model, receipt.endpoint)


async def test_a_malformed_call_is_the_error_that_it_would_get(link: Link) -> None:
    broken = raw_call(b'{"model":"m"}')
    explained_ = await link.ask("explain", ExplainRequest(call=Call(options=OPTIONS, raw=broken)))
    made = await link.generate(unary(raw=broken))
    assert explained_.reason == made.reason == "INVALID_REQUEST"
    assert explained_.failure.message == made.failure.message
    assert ID in str(explained_.failure)


async def test_explanations_are_no_calls_in_the_statistics(link: Link) -> None:
    await explained(link, ExplainRequest(model="m"))
    stats = (await link.ask("get_stats", GetStatsRequest())).only
    assert (stats.calls.total, stats.active_calls) == (0, 0)
