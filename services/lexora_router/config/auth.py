"""Which credentials are asked for."""

from collections.abc import Iterator, Mapping
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from lexora_router.config.check import Fault
from lexora_router.config.jwt import MAX_PROVIDERS, JwtProvider, jwt_faults
from lexora_router.config.section import Section, refuse
from lexora_router.config.values import Text

_TOKEN_MODES = ("jwt", "keys+jwt")


class AuthConfig(Section):
    """Which credentials are asked for, and where they are known from."""

    mode: Literal["off", "keys", "jwt", "keys+jwt"] = "off"
    keys_file: Text = "lexora_keys.jsonl"  # made and edited by `lexora keys`
    jwt: tuple[JwtProvider, ...] = Field(default=(), max_length=MAX_PROVIDERS)  # issuers of tokens

    @model_validator(mode="after")
    def _cross_check(self) -> Self:
        refuse(auth_faults(self.model_dump()))
        return self

    @property
    def enabled(self) -> bool:
        """Whether callers must show a credential."""
        return self.mode != "off"

    @property
    def keys(self) -> bool:
        """Whether keys are taken."""
        return self.mode in ("keys", "keys+jwt")

    @property
    def tokens(self) -> bool:
        """Whether tokens are taken."""
        return self.mode in _TOKEN_MODES


def auth_faults(auth: Mapping[str, Any]) -> Iterator[Fault]:
    """Yield what a mode lacks, and what is wrong across the keys of a provider, with paths relative to auth."""
    providers = auth.get("jwt")
    if auth.get("mode") in _TOKEN_MODES and not providers:
        yield ("jwt",), "is needed by this mode: name an issuer of tokens"
    yield from ((("jwt", *path), message) for path, message in jwt_faults(providers))
