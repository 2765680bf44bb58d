"""The table of rpcs is what the contract's files say."""

from importlib import import_module
from pkgutil import iter_modules
from typing import Any

from google.protobuf.descriptor import MethodDescriptor

import lexora.v1
from lexora_contract.rpcs import RPCS, SERVICES, STREAM, Rpc


def declared() -> dict[str, MethodDescriptor]:
    names = [each.name for each in iter_modules(lexora.v1.__path__) if each.name.endswith("_pb2")]
    files = [import_module(f"lexora.v1.{name}").DESCRIPTOR for name in names]
    services = [service for file in files for service in file.services_by_name.values()]
    return {f"/{service.full_name}/{method.name}": method for service in services for method in service.methods}


def test_every_rpc_has_a_row_and_every_row_an_rpc() -> None:
    assert RPCS.keys() == declared().keys()
    assert {method.containing_service.full_name for method in declared().values()} == set(SERVICES)


def test_a_row_has_the_messages_of_its_rpc() -> None:
    for path, method in declared().items():
        row: Rpc[Any, Any] = RPCS[path]
        assert (method.input_type, method.output_type) == (row.request.DESCRIPTOR, row.response.DESCRIPTOR), path
        assert method.server_streaming == (row is STREAM), path
