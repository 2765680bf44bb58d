"""The configuration: what can be set (`models`), and how a file and the environment set it (`load`)."""

from lexora_router.config.models import (
    AzureConfig,
    BackendConfig,
    CatalogueConfig,
    ClassifierConfig,
    Config,
    FallbackConfig,
    HealthConfig,
    LoggingConfig,
    ModelEntry,
    QueueConfig,
    RateLimitConfig,
    RetryConfig,
    RoutingConfig,
    ServerConfig,
    VllmConfig,
)

__all__ = [
    "AzureConfig",
    "BackendConfig",
    "CatalogueConfig",
    "ClassifierConfig",
    "Config",
    "FallbackConfig",
    "HealthConfig",
    "LoggingConfig",
    "ModelEntry",
    "QueueConfig",
    "RateLimitConfig",
    "RetryConfig",
    "RoutingConfig",
    "ServerConfig",
    "VllmConfig",
]
