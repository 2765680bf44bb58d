import pytest
from tests.unit.gateway import support


@pytest.fixture(params=["own", "asgi"])
def both_sides(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same test over the facade's own connections, and as an ASGI application."""
    monkeypatch.setattr(support, "side", request.param)
