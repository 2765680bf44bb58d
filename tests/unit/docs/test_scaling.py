"""The tables of docs/scaling.md are what tools/scaling.py works out, and its arithmetic is right."""

import importlib.util
import sys
from types import ModuleType

import pytest
from tests.unit.docs.pages import ROOT, page


@pytest.fixture(scope="module")
def scaling() -> ModuleType:
    spec = importlib.util.spec_from_file_location("scaling", ROOT / "tools" / "scaling.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules["scaling"] = importlib.util.module_from_spec(spec)  # dataclasses look there
    spec.loader.exec_module(module)
    return module


def test_the_tables_are_those_of_the_script(scaling: ModuleType) -> None:
    text = page("docs/scaling.md").text
    assert scaling.page(text) == text, "run: python tools/scaling.py --docs"


def test_the_arithmetic(scaling: ModuleType) -> None:
    fleet = scaling.Fleet(
        engines=10,
        calls_at_once=100,
        load=0.5,
        tokens_per_second=10,
        tokens=100,
        tokens_per_chunk=2,
        tenants=1000,
    )
    figures = scaling.Figures(call=1e-3, chunk=1e-4, probe=0, exchange=0, started=1024, stream=1, tenant=1)
    need = scaling.need(fleet, figures)
    assert (need.streams, need.calls, need.chunks) == (500, 50, 2500)  # each call lasts 10 s and sends 50 pieces
    assert need.cores == pytest.approx(50e-3 + 250e-3)
    assert (need.processes, need.exchanges, need.exchanges_per_call, need.sockets) == (1, 10, 0.2, 1000)
    assert (need.probes_sent, need.probes_seen) == (2, 0.2)
    assert need.memory == pytest.approx((1024 + 500 + 1000) / 1024)
    crowded = scaling.need(scaling.replace(fleet, engines=100), figures)
    assert crowded.processes == 5  # 3 cores of work, 0.6 in each
    assert crowded.sockets == 2000
    assert scaling.need(scaling.replace(fleet, engines=4000), figures).exchanges == 1000  # of 200 processes
