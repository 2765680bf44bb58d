"""The configuration as immutable models. `load` fills them from a file and the environment.

Durations are seconds, sizes are bytes. A model that does not validate raises pydantic's ValidationError.
`docs/configuration.md` explains every key; tests keep that page, the example file and these models together.
"""

from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from lexora_router.config.admin import AdminConfig
from lexora_router.config.admission import QueueConfig, RateLimitConfig, TenantConfig
from lexora_router.config.audit import AuditConfig
from lexora_router.config.auth import AuthConfig
from lexora_router.config.check import config_faults, routing_faults
from lexora_router.config.classifier import ClassifierConfig
from lexora_router.config.engines import BackendConfig, VllmConfig
from lexora_router.config.resilience import FailoverConfig, FallbackConfig, HealthConfig, RetryConfig
from lexora_router.config.section import Section, refuse
from lexora_router.config.state import StateConfig
from lexora_router.config.telemetry import TelemetryConfig
from lexora_router.config.tls import TlsConfig
from lexora_router.config.values import (
    MAX_ITEMS,
    BackendName,
    Delay,
    Flag,
    HeaderName,
    HostName,
    Network,
    Origin,
    Port,
    Positive,
    Seconds,
    Text,
    Workers,
)

SINGLE = "vllm"  # the backend's name in single-backend mode


class CorsConfig(Section):
    """Which pages of other origins may call, with which headers, and for how many seconds browsers remember that."""

    allow_origins: tuple[Origin, ...] = Field(default=(), max_length=MAX_ITEMS)  # none: no page
    allow_headers: tuple[HeaderName, ...] = Field(default=("*",), max_length=MAX_ITEMS)
    max_age: Delay = 600.0


class ServerConfig(Section):
    """Where to listen, and the limits of one call. Port 0 picks a free one."""

    workers: Workers = 1  # processes that share the ports; auto: one per core
    host: Text = "127.0.0.1"  # by default no client is asked for a key: to serve the network is a decision
    port: Port = 8001
    grpc_host: Text | None = None  # default: host
    grpc_port: Port = 50051
    metrics_port: Port | None = 9464  # of a router without HTTP; null: no metrics there
    admin_host: Text | None = None  # default: host
    admin_port: Port | None = None  # of HTTP for operators; null: port has it as well
    admin_grpc_port: Port | None = None  # of AdminService; null: grpc_port has it as well
    reflection: Flag = True  # at the gRPC ports
    channelz: Flag | None = None  # null: while auth.mode is off, or at admin_grpc_port
    max_connections: Positive | None = None  # of HTTP; None: half of the file descriptors
    max_connections_per_address: Positive | None = None  # None: half of max_connections
    max_connection_age: Seconds | None = None  # of HTTP and gRPC; None: any
    hosts: tuple[HostName, ...] = Field(default=(), max_length=MAX_ITEMS)  # that HTTP requests may be for; none: all
    max_body_bytes: Positive = 32 * 2**20
    max_buffered_bytes: Positive | None = None  # of all bodies that are being read; None: a share of the memory
    max_response_bytes: Positive = 256 * 2**20  # of a unary answer
    drain_timeout: Delay = 30.0
    max_request_timeout: Seconds = 3600.0
    trusted_proxies: tuple[Network, ...] = Field(default=("127.0.0.0/8", "::1/128"), max_length=MAX_ITEMS)
    write_timeout: Seconds = 60.0  # nothing of an answer could be written for so long
    stream_keepalive: Seconds | None = None  # silence of an HTTP stream that is filled with a comment; null: none is
    cors: CorsConfig = CorsConfig()
    tls: TlsConfig = TlsConfig()


class LoggingConfig(Section):
    """What is logged, and how."""

    level: Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"] = "INFO"
    format: Literal["console", "json"] = "console"

    @field_validator("level", mode="before")
    @classmethod
    def _any_case(cls, value: object) -> object:
        return value.upper() if isinstance(value, str) else value


class RoutingConfig(Section):
    """Which backend serves which model."""

    enabled: Flag = True
    default_backend: BackendName | None = None  # where models go that no backend lists
    default_model_for_unknown_task: Text | None = None
    strict_models: Flag = False  # an unlisted model is 404 even with a default_backend
    answer_model: Literal["asked", "served"] = "asked"  # whose name of a model answers carry
    aliases: dict[Text, Text] = Field(default={}, max_length=MAX_ITEMS)
    classifier: ClassifierConfig = ClassifierConfig()  # what `auto` and classify-task ask
    backends: dict[BackendName, BackendConfig] = Field(default={}, max_length=MAX_ITEMS)

    @model_validator(mode="after")
    def _cross_check(self) -> Self:
        refuse(routing_faults(self.model_dump()))
        return self


class CatalogueConfig(Section):
    """The models that the backends list: how long a list is kept, how long one backend may take."""

    ttl: Delay = 30.0
    timeout: Seconds = 3.0


class ReloadConfig(Section):
    """When a changed configuration is loaded. SIGHUP and `lexora reload` always work."""

    watch: Flag = True  # load the file when it changes
    interval: Seconds = 2.0  # between two looks at it


class Config(Section):
    """Everything. `Config()` is the defaults: one vLLM at localhost:8000."""

    vllm: VllmConfig = VllmConfig()
    server: ServerConfig = ServerConfig()
    auth: AuthConfig = AuthConfig()
    admin: AdminConfig = AdminConfig()
    rate_limit: RateLimitConfig = RateLimitConfig()
    retry: RetryConfig = RetryConfig()
    fallback: FallbackConfig = FallbackConfig()
    failover: FailoverConfig = FailoverConfig()
    queue: QueueConfig = QueueConfig()
    tenants: dict[Text, TenantConfig] = Field(default={}, max_length=MAX_ITEMS)
    audit: AuditConfig = AuditConfig()
    logging: LoggingConfig = LoggingConfig()
    routing: RoutingConfig = RoutingConfig()
    health: HealthConfig = HealthConfig()
    catalogue: CatalogueConfig = CatalogueConfig()
    reload: ReloadConfig = ReloadConfig()
    telemetry: TelemetryConfig = TelemetryConfig()
    state: StateConfig = StateConfig()

    @model_validator(mode="after")
    def _cross_check(self) -> Self:
        refuse(config_faults(self.model_dump(include={"tenants", "rate_limit", "auth", "state"})))
        return self

    @property
    def single_backend(self) -> bool:
        """Whether `vllm` alone is served, for lack of routing.backends."""
        return not (self.routing.enabled and self.routing.backends)

    def backends(self) -> dict[str, BackendConfig]:
        """Return the backends in force by name, in the order of the file; in single-backend mode `vllm` alone."""
        if not self.single_backend:
            return self.routing.backends
        fields = VllmConfig.model_fields
        return {SINGLE: BackendConfig(**{name: getattr(self.vllm, name) for name in fields})}

    def default_backend(self) -> str | None:
        """Return the backend for models that none lists, or None."""
        return SINGLE if self.single_backend else self.routing.default_backend

    def default_model(self) -> str | None:
        """Return the model for calls that name none: the configured one, else the default backend's first."""
        if self.routing.default_model_for_unknown_task:
            return self.routing.default_model_for_unknown_task
        name = self.default_backend()
        models = self.backends()[name].models if name else ()
        return models[0].name if models else None
