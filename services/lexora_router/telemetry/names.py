"""The names under which telemetry groups calls: models, and their providers."""

from collections.abc import Callable, Mapping

from lexora_router.fleet.backend import Backend


class BoundedNames:
    """Names with a bound, for what is kept apart or grouped by name."""

    def __init__(self, label: Callable[[str], str], backends: Callable[[], Mapping[str, Backend]]) -> None:
        self.label = label  # a model's name, "other" for one that no backend lists
        self._backends = backends

    def provider(self, backend: str) -> str:
        """gen_ai.provider.name of a backend; empty when there is no such backend."""
        found = self._backends().get(backend)
        return "" if found is None else found.adapter.provider
