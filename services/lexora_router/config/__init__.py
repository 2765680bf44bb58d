"""The configuration: what can be set (`models`), and how a file and the environment set it (`load`)."""

from lexora_router.config.admission import (
    QueueConfig,
    QueueOverrides,
    RateLimitConfig,
    RateTier,
    TenantConfig,
    UserLimit,
)
from lexora_router.config.classifier import ClassifierConfig, EmbeddingConfig, ExampleConfig, RuleConfig
from lexora_router.config.engines import AzureConfig, BackendConfig, ModelEntry, VllmConfig
from lexora_router.config.models import (
    CatalogueConfig,
    Config,
    LoggingConfig,
    ReloadConfig,
    RoutingConfig,
    ServerConfig,
)
from lexora_router.config.resilience import FailoverConfig, FallbackConfig, HealthConfig, RetryConfig
from lexora_router.config.telemetry import TelemetryConfig

__all__ = [
    "AzureConfig",
    "BackendConfig",
    "CatalogueConfig",
    "ClassifierConfig",
    "Config",
    "EmbeddingConfig",
    "ExampleConfig",
    "FailoverConfig",
    "FallbackConfig",
    "HealthConfig",
    "LoggingConfig",
    "ModelEntry",
    "QueueConfig",
    "QueueOverrides",
    "RateLimitConfig",
    "RateTier",
    "ReloadConfig",
    "RetryConfig",
    "RoutingConfig",
    "RuleConfig",
    "ServerConfig",
    "TelemetryConfig",
    "TenantConfig",
    "UserLimit",
    "VllmConfig",
]
