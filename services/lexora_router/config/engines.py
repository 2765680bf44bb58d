"""The engines: where they are, how they are reached, and how much each may be asked at once."""

import os
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field, model_validator

from lexora_router.adapters import ADAPTERS, DEFAULT, Adapter, family_of
from lexora_router.config.admission import QueueOverrides
from lexora_router.config.check import backend_faults
from lexora_router.config.discover import DiscoverConfig
from lexora_router.config.engine_tls import EngineTls
from lexora_router.config.section import Section, refuse
from lexora_router.config.values import (
    MAX_ITEMS,
    BackendName,
    EnvName,
    Flag,
    Positive,
    Prose,
    Seconds,
    Secret,
    Text,
    Url,
    UrlPath,
    base_url,
)

# A name of the table; for pydantic a Literal of all of them, which a type checker cannot read.
if TYPE_CHECKING:
    BackendType = str
else:
    BackendType = Literal[tuple(ADAPTERS)]

Family = type[Adapter]


class ModelEntry(Section):
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


class AzureConfig(Section):
    """How to reach Azure OpenAI: deployment paths, or the newer /openai/v1 path."""

    api: Literal["deployments", "v1"] = "deployments"
    api_version: Text | None = None  # required for deployments


class _Engine(Section):
    url: Url | None = None
    urls: tuple[Url, ...] = Field(default=(), max_length=MAX_ITEMS)
    timeout: Seconds = 120.0  # the longest silence: a unary answer, the first token, and between tokens
    connect_timeout: Seconds = 5.0
    first_token_timeout: Seconds | None = None  # default: timeout
    idle_timeout: Seconds | None = None  # default: timeout
    total_timeout: Seconds = 3600.0  # one attempt, streams included
    api_key: Secret | None = None
    api_key_env: EnvName | None = None
    concurrency: Literal["fixed", "auto"] = "fixed"  # auto moves between min_concurrency and max_concurrency
    min_concurrency: Positive = 4
    scrape_interval: Seconds = 1.0  # of the engine's /metrics, for auto
    scheduling_policy: Literal["fcfs", "priority"] = "fcfs"  # how the vLLM server was started

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
        refuse(backend_faults(self.model_dump(), discovers="discover" in type(self).model_fields))
        return self


class BackendConfig(_Engine):
    """One engine protocol at one address, or at several that serve the same models, which may be found while it runs."""

    discover: DiscoverConfig | None = None
    type: BackendType = DEFAULT
    azure: AzureConfig | None = None
    models: tuple[ModelEntry, ...] = Field(default=(), max_length=MAX_ITEMS)
    model_mapping: dict[Text, Text] = Field(default={}, max_length=MAX_ITEMS)  # the client's name -> the engine's
    fallback_backends: tuple[BackendName, ...] = Field(default=(), max_length=MAX_ITEMS)
    # Used when this backend is another's fallback, before model_mapping: what is asked -> what is served.
    fallback_models: dict[Text, Text] = Field(default={}, max_length=MAX_ITEMS)
    stream_usage: Flag = True  # ask the engine for stream_options.include_usage
    # GET here shows health; None: only calls and TCP connects do.
    health_path: UrlPath | None = Field(default_factory=lambda data: _family(data).default_health_path)
    ca_file: Text | None = None
    client_cert: Text | None = None  # PEM: what engines are shown
    client_key: Text | None = None  # None: in `client_cert`
    verify: Flag = True  # false: any certificate of the engine will do
    server_name: Text | None = None  # None: the host of the address
    # Attempts in flight per endpoint; None: no limit.
    max_concurrency: Positive | None = Field(default_factory=lambda data: _family(data).default_max_concurrency)
    queue: QueueOverrides | None = None

    @property
    def family(self) -> Family:
        """The family of engines that it belongs to."""
        return _family(vars(self))

    @property
    def tls(self) -> EngineTls:
        """How TLS to its engines is spoken, where an address is https."""
        found = self.discover.certified_name if self.discover is not None else None
        return EngineTls(self.ca_file, self.client_cert, self.client_key, self.verify, self.server_name or found)

    @property
    def secured(self) -> bool:
        """Whether an address is https."""
        if self.discover is not None:
            return self.discover.scheme == "https"
        return any(url.startswith("https:") for url in self.endpoints)

    def adapter(self, environ: Mapping[str, str] = os.environ) -> Adapter:
        """What is particular about its engines."""
        return self.family(self, self.resolve_key(environ))

    @property
    def endpoints(self) -> tuple[str, ...]:
        """The configured base addresses, without a trailing slash and without /v1; none where they are discovered."""
        given = self.urls or ((self.url,) if self.url else ())
        return tuple(self.family.base(url) for url in given)

    def discovered(self, addresses: Iterable[str]) -> tuple[str, ...]:
        """The same for discovered addresses, each `host:port`."""
        assert self.discover is not None
        scheme, path = self.discover.scheme, self.discover.path or ""
        return tuple(self.family.base(base_url(f"{scheme}://{address}{path}")) for address in addresses)


def _family(keys: Mapping[str, Any]) -> Family:
    """The family by what is valid of a backend's keys; a type that is not is reported itself."""
    return family_of(keys) or ADAPTERS[DEFAULT]


class VllmConfig(_Engine):
    """The engine of single-backend mode: used when routing has no backends or is off."""

    url: Url | None = "http://localhost:8000"
    max_concurrency: Positive | None = ADAPTERS[DEFAULT].default_max_concurrency

    @model_validator(mode="before")
    @classmethod
    def _urls_replace_the_default(cls, value: Any) -> Any:
        if isinstance(value, dict) and value.get("urls") and "url" not in value:
            return {**value, "url": None}
        return value
