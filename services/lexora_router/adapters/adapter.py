"""How an engine is addressed: paths, names, keys. One class per kind of engine; none of them does I/O."""

from typing import Protocol
from urllib.parse import quote

from yarl import URL

from lexora_router.config import AzureConfig, BackendConfig
from lexora_router.errors import InvalidRequest


class EngineProtocol(Protocol):
    """What differs between engines."""

    def url(self, base: URL, path: str, model: str) -> URL:
        """Where a call goes."""

    def auth(self) -> dict[str, str]:
        """Headers that carry our own key."""

    def models_url(self, base: URL) -> URL:
        """Where the engine lists its models."""

    def health_url(self, base: URL) -> URL | None:
        """Where a probe goes; None where there is nothing free of charge to ask."""


class OpenAiProtocol:
    """OpenAI's own API, and everything compatible with it."""

    def __init__(self, key: str | None, health_path: str | None) -> None:
        self._key = key
        self._health_path = health_path

    def url(self, base: URL, path: str, model: str) -> URL:
        """The path as it is."""
        return base.joinpath(path.lstrip("/")) if base.path != "/" else base.with_path(path)

    def auth(self) -> dict[str, str]:
        """A bearer key, if one is configured."""
        return {"authorization": f"Bearer {self._key}"} if self._key else {}

    def models_url(self, base: URL) -> URL:
        """OpenAI's list of models."""
        return self.url(base, "/v1/models", "")

    def health_url(self, base: URL) -> URL | None:
        """The configured path."""
        return self.url(base, self._health_path, "") if self._health_path else None


class AzureProtocol:
    """Azure OpenAI: an `api-key` header, and either deployment paths or the newer /openai/v1 path.

    https://learn.microsoft.com/azure/ai-foundry/openai/reference (deployments, dated api-version)
    https://learn.microsoft.com/azure/ai-foundry/openai/api-version-lifecycle (v1, api-version optional)
    """

    def __init__(self, key: str | None, azure: AzureConfig) -> None:
        self._key = key
        self._query = {"api-version": azure.api_version} if azure.api_version else {}
        self._v1 = azure.api == "v1"

    def url(self, base: URL, path: str, model: str) -> URL:
        """The model is part of the path in the deployment style."""
        rest = path.removeprefix("/v1/").lstrip("/")
        where = base / "openai" / "v1" if self._v1 else _deployment(base, model)
        return where.joinpath(rest).with_query(self._query)

    def auth(self) -> dict[str, str]:
        """Azure's own header."""
        return {"api-key": self._key} if self._key else {}

    def models_url(self, base: URL) -> URL:
        """The list of base models; deployments have none on the data plane."""
        where = base / "openai" / "v1" if self._v1 else base / "openai"
        return (where / "models").with_query(self._query)

    def health_url(self, base: URL) -> URL | None:
        """Nothing free of charge to ask."""
        return None


def _deployment(base: URL, model: str) -> URL:
    """The model as one segment of the path, whatever a client calls it; raises InvalidRequest when it cannot be one."""
    if model in ("", ".", ".."):
        raise InvalidRequest("The model does not name a deployment.", "model")
    return (base / "openai" / "deployments").joinpath(quote(model, safe=""), encoded=True)


def protocol_of(config: BackendConfig) -> EngineProtocol:
    """The protocol that a backend's configuration asks for."""
    key = config.resolve_key()
    if config.azure is not None:
        return AzureProtocol(key, config.azure)
    return OpenAiProtocol(key, config.health_path)
