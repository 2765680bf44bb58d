"""The configuration as immutable models. `load` fills them from a file and the environment.

Durations are seconds, sizes are bytes. A model that does not validate raises pydantic's ValidationError.
`docs/configuration.md` explains every key; tests keep that page, the example file and these models together.
"""

import os
from collections.abc import Iterable, Mapping
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from lexora_router.config.check import Fault, backend_faults, routing_faults
from lexora_router.config.problems import Problem
from lexora_router.config.values import (
    MAX_ITEMS,
    BackendName,
    Count,
    Delay,
    EnvName,
    Flag,
    Number,
    Port,
    Positive,
    Prose,
    Seconds,
    Secret,
    Text,
    Url,
    UrlPath,
)

CROSS_CHECK = "cross_check"  # the error type of faults that check finds
SINGLE = "vllm"  # the backend's name in single-backend mode


def _raise(faults: Iterable[Fault]) -> None:
    found = list(faults)
    if found:
        text = "; ".join(str(Problem(None, path, message)) for path, message in found)
        raise PydanticCustomError(CROSS_CHECK, "{text}", {"text": text, "faults": found})


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class ModelEntry(_Section):
    """A model that a backend serves. In YAML a mapping, or the bare name."""

    name: Text
    capabilities: tuple[Text, ...] = Field(default=("general",), max_length=MAX_ITEMS)
    description: Prose = ""
    max_model_len: Positive | None = None  # tokens

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: object) -> object:
        if isinstance(value, str):
            return {"name": value}
        if not isinstance(value, dict | ModelEntry):
            raise ValueError("must be a model's name (text), or a map with name")
        return value


class AzureConfig(_Section):
    """How to reach Azure OpenAI: deployment paths, or the newer /openai/v1 path."""

    api: Literal["deployments", "v1"] = "deployments"
    api_version: Text | None = None  # required for deployments


class _Engine(_Section):
    url: Url | None = None
    urls: tuple[Url, ...] = Field(default=(), max_length=MAX_ITEMS)
    timeout: Seconds = 120.0  # the longest silence: a unary answer, the first token, and between tokens
    connect_timeout: Seconds = 5.0
    first_token_timeout: Seconds | None = None  # default: timeout
    idle_timeout: Seconds | None = None  # default: timeout
    total_timeout: Seconds = 3600.0  # the whole call, streams included
    api_key: Secret | None = None
    api_key_env: EnvName | None = None

    @property
    def first_token(self) -> float:
        """Seconds until the first token."""
        return self.timeout if self.first_token_timeout is None else self.first_token_timeout

    @property
    def idle(self) -> float:
        """Seconds of silence between tokens."""
        return self.timeout if self.idle_timeout is None else self.idle_timeout

    def resolve_key(self, environ: Mapping[str, str] = os.environ) -> str | None:
        """Return the engine's key: from the variable `api_key_env` names if it is set, else `api_key`, else None."""
        named = environ.get(self.api_key_env, "").strip() if self.api_key_env else ""
        if named:
            return named
        return self.api_key.get_secret_value() if self.api_key else None

    @model_validator(mode="after")
    def _cross_check(self) -> Self:
        _raise(backend_faults(self.model_dump()))
        return self


class BackendConfig(_Engine):
    """One engine protocol at one address, or at several that serve the same models."""

    type: Literal["vllm", "openai_compatible"] = "vllm"
    azure: AzureConfig | None = None
    models: tuple[ModelEntry, ...] = Field(default=(), max_length=MAX_ITEMS)
    model_mapping: dict[Text, Text] = Field(default={}, max_length=MAX_ITEMS)  # the client's name -> the engine's
    fallback_backends: tuple[BackendName, ...] = Field(default=(), max_length=MAX_ITEMS)
    stream_usage: Flag = True  # ask the engine for stream_options.include_usage
    # GET here tells health; None means that only calls and TCP connects tell.
    health_path: UrlPath | None = Field(default_factory=lambda data: "/health" if data.get("type") == "vllm" else None)
    ca_file: Text | None = None
    max_concurrency: Positive | None = None

    @property
    def endpoints(self) -> tuple[str, ...]:
        """The base addresses, at least one, without a trailing slash and without /v1."""
        given = self.urls or ((self.url,) if self.url else ())
        return tuple(url.removesuffix("/openai") for url in given) if self.azure else given


class VllmConfig(_Engine):
    """The engine of single-backend mode: used when routing has no backends or is off."""

    url: Url | None = "http://localhost:8000"

    @model_validator(mode="before")
    @classmethod
    def _urls_replace_the_default(cls, value: Any) -> Any:
        if isinstance(value, dict) and value.get("urls") and "url" not in value:
            return {**value, "url": None}
        return value


class ServerConfig(_Section):
    """Where to listen, and the limits of one call. Port 0 picks a free one."""

    host: Text = "0.0.0.0"  # noqa: S104 - a gateway serves the network
    port: Port = 8001
    grpc_host: Text | None = None  # default: host
    grpc_port: Port = 50051
    max_body_bytes: Positive = 32 * 2**20
    max_response_bytes: Positive = 256 * 2**20  # of a unary answer
    drain_timeout: Delay = 30.0
    max_request_timeout: Seconds = 3600.0


class RateLimitConfig(_Section):
    """Token buckets per client: requests per second, and tokens per minute."""

    enabled: Flag = True
    default_rate: Number = Field(default=10.0, gt=0)
    default_burst: Positive = 20
    tokens_per_minute: Positive | None = None
    max_users: Positive = 100_000


class RetryConfig(_Section):
    """Attempts after a failure, before the first byte of the answer."""

    max_retries: Count = Field(default=3, le=100)
    base_delay: Delay = 1.0
    max_delay: Delay = 30.0
    exponential_base: Number = Field(default=2.0, ge=1, le=100)
    respect_retry_after: Flag = True
    max_retry_after: Delay = 60.0


class FallbackConfig(_Section):
    """Whether a failed backend's calls go to its fallback_backends."""

    enabled: Flag = True
    on_rate_limit: Flag = True


class QueueConfig(_Section):
    """Calls that wait for a slot."""

    max_size: Count = 1000
    timeout: Seconds = 60.0


class LoggingConfig(_Section):
    """What is logged, and how."""

    level: Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"] = "INFO"
    format: Literal["console", "json"] = "console"

    @field_validator("level", mode="before")
    @classmethod
    def _any_case(cls, value: object) -> object:
        return value.upper() if isinstance(value, str) else value


class ClassifierConfig(_Section):
    """The model that names a task."""

    enabled: Flag = False
    model: Text | None = None
    backend: BackendName | None = None
    timeout: Seconds = 5.0


class RoutingConfig(_Section):
    """Which backend serves which model."""

    enabled: Flag = True
    default_backend: BackendName | None = None  # where models go that no backend lists
    default_model_for_unknown_task: Text | None = None
    strict_models: Flag = False  # an unlisted model is 404 even with a default_backend
    aliases: dict[Text, Text] = Field(default={}, max_length=MAX_ITEMS)
    classifier: ClassifierConfig = ClassifierConfig()
    backends: dict[BackendName, BackendConfig] = Field(default={}, max_length=MAX_ITEMS)

    @model_validator(mode="after")
    def _cross_check(self) -> Self:
        _raise(routing_faults(self.model_dump()))
        return self


class HealthConfig(_Section):
    """How often each endpoint is probed, and how long a probe may take."""

    interval: Seconds = 5.0
    timeout: Seconds = 2.0


class CatalogueConfig(_Section):
    """The models that the backends list: how long a list is kept, how long one backend may take."""

    ttl: Delay = 30.0
    timeout: Seconds = 3.0


class Config(_Section):
    """Everything. `Config()` is the defaults: one vLLM at localhost:8000."""

    vllm: VllmConfig = VllmConfig()
    server: ServerConfig = ServerConfig()
    rate_limit: RateLimitConfig = RateLimitConfig()
    retry: RetryConfig = RetryConfig()
    fallback: FallbackConfig = FallbackConfig()
    queue: QueueConfig = QueueConfig()
    logging: LoggingConfig = LoggingConfig()
    routing: RoutingConfig = RoutingConfig()
    health: HealthConfig = HealthConfig()
    catalogue: CatalogueConfig = CatalogueConfig()

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
