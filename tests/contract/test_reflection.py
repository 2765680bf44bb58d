"""Reflection under both names, and channelz: what tools need to work without a proto file."""

from typing import Any

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.descriptor import Descriptor, FileDescriptor
from grpc_channelz.v1 import channelz_pb2, channelz_pb2_grpc
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest, ServerReflectionResponse

from lexora.v1 import (
    admin_pb2,
    call_pb2,
    chat_pb2,
    classify_pb2,
    completion_pb2,
    embed_pb2,
    errors_pb2,
    explain_pb2,
    health_pb2,
    models_pb2,
    options_pb2,
    raw_pb2,
    receipt_pb2,
    recent_calls_pb2,
    reload_pb2,
    router_pb2,
    sampling_pb2,
    stats_pb2,
    tokens_pb2,
)
from lexora_router.process.app import RouterApp
from tests.support.links import channel

MODULES = (
    admin_pb2,
    call_pb2,
    chat_pb2,
    classify_pb2,
    completion_pb2,
    embed_pb2,
    errors_pb2,
    explain_pb2,
    health_pb2,
    models_pb2,
    options_pb2,
    raw_pb2,
    receipt_pb2,
    recent_calls_pb2,
    reload_pb2,
    router_pb2,
    sampling_pb2,
    stats_pb2,
    tokens_pb2,
)
SERVICES = {
    "lexora.v1.AdminService",
    "lexora.v1.RouterService",
    "grpc.health.v1.Health",
    "grpc.channelz.v1.Channelz",
    "grpc.reflection.v1alpha.ServerReflection",
}


class Reflection:
    """A client of one version of the service; the messages are the same on the wire."""

    def __init__(self, wire: Any, version: str) -> None:
        self._ask = wire.stream_stream(
            f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
            request_serializer=ServerReflectionRequest.SerializeToString,
            response_deserializer=ServerReflectionResponse.FromString,
        )

    async def ask(self, *requests: ServerReflectionRequest) -> list[ServerReflectionResponse]:
        return [response async for response in self._ask(iter(requests), timeout=5)]

    async def files(self, *symbols: str) -> list[list[bytes]]:
        """The files that describe each symbol, dependencies included."""
        answers = await self.ask(*(ServerReflectionRequest(file_containing_symbol=symbol) for symbol in symbols))
        return [list(answer.file_descriptor_response.file_descriptor_proto) for answer in answers]


@pytest.fixture(params=["v1", "v1alpha"])
def version(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def symbols() -> list[str]:
    """Every message and enum of the contract, nested ones included."""
    found: list[str] = []

    def walk(message: Descriptor) -> None:
        found.append(message.full_name)
        found.extend(enum.full_name for enum in message.enum_types)
        for nested in message.nested_types:
            walk(nested)

    for module in MODULES:
        file: FileDescriptor = module.DESCRIPTOR
        found += [enum.full_name for enum in file.enum_types_by_name.values()]
        found += [service.full_name for service in file.services_by_name.values()]
        for message in file.message_types_by_name.values():
            walk(message)
    return found


def pool_of(answers: list[list[bytes]]) -> descriptor_pool.DescriptorPool:
    """A pool of all these files, each once, dependencies first."""
    pool = descriptor_pool.DescriptorPool()
    files = [descriptor_pb2.FileDescriptorProto.FromString(data) for answer in answers for data in answer]
    left = {file.name: file for file in files}
    while left:
        ready = next(file for file in left.values() if not left.keys() & set(file.dependency))
        pool.Add(left.pop(ready.name))
    return pool


async def test_it_lists_the_services(router: tuple[RouterApp, str], version: str) -> None:
    async with channel(router[1]) as wire:
        (answer,) = await Reflection(wire, version).ask(ServerReflectionRequest(list_services=""))
    assert {service.name for service in answer.list_services_response.service} >= SERVICES


async def test_it_describes_every_message(router: tuple[RouterApp, str], version: str) -> None:
    names = symbols()
    assert len(names) > 50
    async with channel(router[1]) as wire:
        answers = await Reflection(wire, version).files(*names)
    pool = pool_of(answers)
    for module in MODULES:
        own = descriptor_pb2.FileDescriptorProto()
        module.DESCRIPTOR.CopyToProto(own)
        theirs = descriptor_pb2.FileDescriptorProto()
        pool.FindFileByName(module.DESCRIPTOR.name).CopyToProto(theirs)
        assert theirs == own


async def test_a_call_can_be_made_from_descriptors_alone(router: tuple[RouterApp, str], version: str) -> None:
    async with channel(router[1]) as wire:
        pool = pool_of(await Reflection(wire, version).files("lexora.v1.RouterService"))
        method = pool.FindServiceByName("lexora.v1.RouterService").FindMethodByName("Health")
        response: Any = message_factory.GetMessageClass(method.output_type)
        request: Any = message_factory.GetMessageClass(method.input_type)
        call = wire.unary_unary(
            "/lexora.v1.RouterService/Health",
            request_serializer=request.SerializeToString,
            response_deserializer=response.FromString,
        )
        answer: Any = await call(request())
    assert list(answer.backends) == ["main"]


async def test_an_unknown_symbol_is_not_found(router: tuple[RouterApp, str], version: str) -> None:
    async with channel(router[1]) as wire:
        (answer,) = await Reflection(wire, version).ask(ServerReflectionRequest(file_containing_symbol="lexora.v1.Nothing"))
    assert answer.error_response.error_code == 5


async def test_channelz_answers(router: tuple[RouterApp, str]) -> None:
    async with channel(router[1]) as wire:
        stub = channelz_pb2_grpc.ChannelzStub(wire)
        for _ in range(3):
            found: Any = await stub.GetServers(channelz_pb2.GetServersRequest())
        (server,) = (each for each in found.server if each.data.calls_started >= 3)
        sockets: Any = await stub.GetServerSockets(channelz_pb2.GetServerSocketsRequest(server_id=server.ref.server_id))
        assert len(sockets.socket_ref) == 1
        ours: Any = await stub.GetSocket(channelz_pb2.GetSocketRequest(socket_id=sockets.socket_ref[0].socket_id))
        assert ours.socket.data.streams_started >= 5
        top: Any = await stub.GetTopChannels(channelz_pb2.GetTopChannelsRequest())
        assert router[1] in str(top)
