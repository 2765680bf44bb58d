"""The HTTP facade: OpenAI's API in front of a router that speaks lexora.v1."""

from lexora_gateway.app import create_app
from lexora_gateway.buffered import BufferedBytes
from lexora_gateway.grpc_router import GrpcRouter
from lexora_gateway.http.client_timeouts import Patience
from lexora_gateway.http.connections import Connections, bounded
from lexora_gateway.http.cors import Cors
from lexora_gateway.http.protocol import BoundedHttpProtocol
from lexora_gateway.router_port import CallContext, Emit, RouterPort, RouterStatusError
from lexora_gateway.scrape import process_metrics
from lexora_gateway.serve import GatewayServer, server_config

__all__ = [
    "BoundedHttpProtocol",
    "BufferedBytes",
    "CallContext",
    "Connections",
    "Cors",
    "Emit",
    "GatewayServer",
    "GrpcRouter",
    "Patience",
    "RouterPort",
    "RouterStatusError",
    "bounded",
    "create_app",
    "process_metrics",
    "server_config",
]
