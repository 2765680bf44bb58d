"""The caller behind a credential: all that limits, fairness, log and metrics go by."""

from dataclasses import dataclass, field
from functools import lru_cache

import re2

from lexora_contract.access import SCOPES, Scope

_CACHED = 4096


@dataclass(frozen=True, slots=True)
class Grants:
    """What a principal has of its own. None: as its tenant has it.

    `rate` in requests per second with `burst`, `tokens_per_minute`, `max_concurrent` calls at once, and priorities by the
    numbers of `lexora_contract.priority`.
    """

    rate: float | None = None
    burst: int | None = None
    tokens_per_minute: int | None = None
    max_concurrent: int | None = None
    priority: int | None = None
    max_priority: int | None = None

    @property
    def limited(self) -> bool:
        """Whether it has a limit of its own."""
        return not (self.rate is self.burst is self.tokens_per_minute is self.max_concurrent is None)


_NONE = Grants()


@dataclass(frozen=True, slots=True)
class Principal:
    """One caller that has shown a credential, or any caller where none is asked for.

    `tenant` is empty for the latter: then the call's own words decide whose it is. `key` is the public part of a credential,
    which may stand in logs and metrics. `models` and `operations` are glob patterns (`*`, `?`) of names and of paths; empty:
    all.
    """

    tenant: str = ""
    key: str = ""
    name: str = ""
    models: tuple[str, ...] = ()
    operations: tuple[str, ...] = ()
    scopes: frozenset[Scope] = SCOPES
    grants: Grants = field(default=_NONE)

    @property
    def account(self) -> str:
        """Whose account its calls are charged to; empty of the one that has shown no credential."""
        return self.tenant or self.key

    def may_use(self, model: str) -> bool:
        """Whether it may ask this model, and see that it is there."""
        return not self.models or matches(self.models, model)

    def may_do(self, path: str) -> bool:
        """Whether it may call this operation, by its path."""
        return not self.operations or matches(self.operations, path)


ANYBODY = Principal()  # where no credentials are asked for
STRANGER = Principal(scopes=frozenset())  # until credentials are found to hold


@lru_cache(_CACHED)
def matches(patterns: tuple[str, ...], name: str) -> bool:
    """Whether one of these globs describes the whole name, upper and lower case apart."""
    return _compiled(patterns).fullmatch(name) is not None


@lru_cache(_CACHED)
def _compiled(patterns: tuple[str, ...]) -> "re2._Regexp":
    parts = [re2.escape(pattern).replace(r"\*", ".*").replace(r"\?", ".") for pattern in patterns]
    return re2.compile("(?s)" + "|".join(f"(?:{part})" for part in parts))
