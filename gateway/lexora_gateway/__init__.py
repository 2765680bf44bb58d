"""The HTTP facade: OpenAI's API in front of a router that speaks lexora.v1."""

from lexora_gateway.buffered import BufferedBytes
from lexora_gateway.deferred import DeferredApp
from lexora_gateway.http.client_timeouts import Patience
from lexora_gateway.http.connections import Connections, bounded
from lexora_gateway.http.cors import Cors
from lexora_gateway.http.hosts import Hosts
from lexora_gateway.http.tls import Tls
from lexora_gateway.page_sessions import Sessions
from lexora_gateway.parts import Surface
from lexora_gateway.process_metrics import process_metrics
from lexora_gateway.serve import GatewayServer, log_router, server_config

__all__ = [
    "BufferedBytes",
    "Connections",
    "Cors",
    "DeferredApp",
    "GatewayServer",
    "Hosts",
    "Patience",
    "Sessions",
    "Surface",
    "Tls",
    "bounded",
    "log_router",
    "process_metrics",
    "server_config",
]
