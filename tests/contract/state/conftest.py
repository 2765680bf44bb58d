"""One real Valkey for all tests of the contract."""

from collections.abc import Iterator

import pytest

from tests.support.valkey import ValkeyProcess


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyProcess]:
    with ValkeyProcess(tmp_path_factory.mktemp("valkey")) as running:
        yield running
