"""Azure OpenAI: an `api-key` header, and either deployment paths or the newer /openai/v1 path.

https://learn.microsoft.com/azure/ai-foundry/openai/reference (deployments, dated api-version)
https://learn.microsoft.com/azure/ai-foundry/openai/api-version-lifecycle (v1, api-version optional)
"""

from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote

from yarl import URL

from lexora_router.adapters.adapter import Adapter, Settings
from lexora_router.errors import InvalidRequest


class Azure(Adapter):
    """The models of an Azure resource; in the deployment style a model's name is that of its deployment."""

    provider = "azure.ai.openai"
    section = "azure"
    lists_what_is_asked = False  # it lists base models; deployments have no list on the data plane

    def __init__(self, settings: Settings, key: str | None) -> None:
        super().__init__(settings, key)
        assert settings.azure is not None  # `faults` sees to it
        version = settings.azure.api_version
        self._query = {"api-version": version} if version else {}
        self._v1 = settings.azure.api == "v1"

    @classmethod
    def faults(cls, backend: Mapping[str, Any]) -> Iterator[tuple[tuple[str | int, ...], str]]:
        """The dated API needs its date."""
        azure = backend.get("azure")
        if azure is None:
            yield ("azure",), 'is needed: {api_version: "2024-10-21"}, or {api: v1}'
        elif (
            isinstance(azure, Mapping) and azure.get("api", "deployments") == "deployments" and azure.get("api_version") is None
        ):
            yield ("azure",), 'needs api_version, for example "2024-10-21" (only api: v1 works without)'

    @classmethod
    def base(cls, url: str) -> str:
        """The portal shows addresses with the first segment of every path."""
        return url.removesuffix("/openai")

    def url(self, base: URL, path: str, model: str) -> URL:
        """The model is part of the path in the deployment style."""
        rest = path.removeprefix("/v1/").lstrip("/")
        where = base / "openai" / "v1" if self._v1 else _deployment(base, model)
        return where.joinpath(rest).with_query(self._query)

    def headers(self) -> dict[str, str]:
        """Azure's own header."""
        return {"api-key": self._key} if self._key else {}

    def models_url(self, base: URL) -> URL:
        """The list of base models."""
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
