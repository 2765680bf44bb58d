"""The gRPC server: its ports and bounds, health, reflection and channelz."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import grpc
from grpc_channelz.v1 import channelz, channelz_pb2
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2

from lexora_contract.rpcs import SERVICES
from lexora_router.edge.arriving_requests import ARRIVING_SHARE, ArrivingRequests
from lexora_router.edge.grpc_context import believed, certified, wire_of
from lexora_router.edge.grpc_decoding import UndecodableRequests
from lexora_router.edge.grpc_servicer import Servicer, refuse_undecodable
from lexora_router.edge.services import Services
from lexora_router.machine import usable_descriptors, usable_memory
from lexora_router.workers.open_sockets import connections, stop_listening

MAX_METADATA_BYTES = 2 * 1024 * 1024
# Clients keep long calls alive with pings, some every second; one that pings faster for long is sent away (GOAWAY
# "too_many_pings"), as gRPC does by default from 5 minutes down.
MIN_PING_INTERVAL_MS = 500
# Of the file descriptors, an eighth may be connections of gRPC clients.
CONNECTIONS_SHARE = 8
# Streams of one connection. A call whose message does not come is not seen here, takes no slot, and 3 KiB of memory; a façade
# in front of a router has all its calls on one connection.
MAX_STREAMS = 10_000

# Connections to one of several workers end after so many seconds, between two calls, unless the configuration says otherwise:
# their clients go on to another worker, and one that hands over is without them soon. gRPC cannot be asked to end them by then:
# while it stops, it cancels calls that are on their way.
SHARED_AGE = 10.0
# gRPC varies the age by a tenth; then the last calls are read.
AGED = 1.1
_LOOK_SECONDS = 0.25

_HEALTH = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
_CHANNELZ = channelz_pb2.DESCRIPTOR.services_by_name["Channelz"].full_name


@dataclass(frozen=True, slots=True)
class GrpcTls:
    """What the port shows, how long a handshake may take (seconds), and whether clients show a certificate."""

    credentials: grpc.ServerCredentials
    handshake: float
    certificates: bool


class GrpcServer:
    """The gRPC server of some services, with health (Check and Watch), reflection (v1 and v1alpha) and channelz.

    A `shared` port is one that other processes of the same user may serve, too.
    """

    def __init__(
        self,
        service: Services,
        *,
        max_body_bytes: int,
        write_timeout: float,
        tls: GrpcTls | None = None,
        services: Sequence[str] = SERVICES,
        with_reflection: bool = True,
        with_channelz: bool = True,
        max_age: float | None = None,
        arriving: ArrivingRequests | None = None,
        shared: bool = False,
    ) -> None:
        self.arriving = arriving or ArrivingRequests(usable_memory() // ARRIVING_SHARE)
        self.health = health.aio.HealthServicer()
        self._tls = tls
        self._services = services
        self._age = max_age = SHARED_AGE if shared and max_age is None else max_age
        self._port = 0
        self._left = 0.0  # when it was taken out of the port, by the event loop's clock
        self._looked = 0.0
        self._open = 0
        wire = partial(believed, service, certified if tls is not None and tls.certificates else wire_of)
        self._server = grpc.aio.server(
            interceptors=[UndecodableRequests(partial(refuse_undecodable, service, wire), self.arriving)],
            options=[
                ("grpc.max_receive_message_length", max_body_bytes + 1024 * 1024),
                ("grpc.max_send_message_length", -1),
                ("grpc.absolute_max_metadata_size", MAX_METADATA_BYTES),
                ("grpc.keepalive_permit_without_calls", 1),
                ("grpc.http2.min_ping_interval_without_data_ms", MIN_PING_INTERVAL_MS),
                ("grpc.so_reuseport", int(shared)),
                ("grpc.max_concurrent_streams", MAX_STREAMS),
                # Of what has not been asked for gRPC takes 64 KiB of each stream, and not as much as the line is fast.
                ("grpc.http2.bdp_probe", 0),
                # One connection carries any number of calls; further ones are closed as they come.
                ("grpc.max_allowed_incoming_connections", max(usable_descriptors() // CONNECTIONS_SHARE, 1)),
                # Calls under way have all the time that they need.
                *([] if max_age is None else [("grpc.max_connection_age_ms", max(round(max_age * 1000), 1))]),
                *([] if tls is None else [("grpc.server_handshake_timeout_ms", max(round(tls.handshake * 1000), 1))]),
            ],
        )
        Servicer(service, write_timeout, wire).add_to(self._server, services)
        health_pb2_grpc.add_HealthServicer_to_server(self.health, self._server)
        if with_channelz:
            channelz.add_channelz_servicer(self._server)
        if with_reflection:
            enable_reflection(self._server, (*services, _HEALTH, *((_CHANNELZ,) if with_channelz else ())))

    async def start(self, host: str, port: int) -> int:
        """Listen; returns the port, which port 0 lets the system choose. Raises OSError when the address is taken."""
        address = host if host.startswith("unix:") else f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        try:
            if self._tls is None or host.startswith("unix:"):  # a socket in the file system is as safe as its folder
                bound = self._server.add_insecure_port(address)
            else:
                bound = self._server.add_secure_port(address, self._tls.credentials)
        except RuntimeError as error:
            raise OSError(f"cannot listen on {address}") from error
        self._port = 0 if host.startswith("unix:") else bound
        await self._server.start()
        await self.set_serving(serving=True)
        return bound

    async def set_serving(self, *, serving: bool) -> None:
        """Set the state in grpc.health.v1, overall and for each service."""
        state = health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
        for name in ("", *self._services):
            await self.health.set(name, state)

    async def drain(self) -> None:
        """Say in grpc.health.v1 for good that nothing is served; later calls of `set_serving` have no effect."""
        await self.health.enter_graceful_shutdown()

    def hand_over(self) -> None:
        """Take no more connections, as another process has the port; calls on those there are are served as ever."""
        self._left = asyncio.get_running_loop().time()
        if self._port:
            stop_listening(self._port)

    @property
    def vacated(self) -> bool:
        """Whether after `hand_over` no client can send a call any more: none is connected, or all were asked to go."""
        now = asyncio.get_running_loop().time()
        if self._age is not None and now - self._left > self._age * AGED + 1:
            return True
        if now - self._looked >= _LOOK_SECONDS:
            self._looked, self._open = now, connections(self._port)
        return not self._open

    async def stop(self, grace: float) -> None:
        """Take no new calls, let the ones under way finish for `grace` seconds, then cancel them."""
        await self._server.stop(grace)


def enable_reflection(server: grpc.aio.Server, services: Sequence[str]) -> None:
    """Serve descriptors under both names: newer tools ask v1, older ones v1alpha. The messages are the same on the wire."""
    names = (*services, reflection.SERVICE_NAME)
    reflection.enable_server_reflection(names, server)
    handler = grpc.stream_stream_rpc_method_handler(
        reflection.aio.ReflectionServicer(names).ServerReflectionInfo,
        request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
        response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    v1 = grpc.method_handlers_generic_handler("grpc.reflection.v1.ServerReflection", {"ServerReflectionInfo": handler})
    server.add_generic_rpc_handlers((v1,))
