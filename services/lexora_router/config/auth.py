"""Which credentials are asked for."""

import os
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, model_validator

from lexora_router.config.check import Fault
from lexora_router.config.client_certificates import CertificateConfig
from lexora_router.config.jwt import MAX_PROVIDERS, JwtProvider, jwt_faults
from lexora_router.config.section import Section, refuse
from lexora_router.config.values import MAX_ITEMS, EnvName, Network, Secret, Text

MIN_SALT_SECRET = 16
_TOKEN_MODES = ("jwt", "keys+jwt")


def _long(secret: SecretStr) -> SecretStr:
    if len(secret.get_secret_value()) < MIN_SALT_SECRET:
        raise ValueError(f"must have at least {MIN_SALT_SECRET} characters, all of them random")
    return secret


def _as_written(mode: object) -> object:
    """YAML 1.1 reads `off` without quotes as false."""
    return "off" if mode is False else mode


class AuthConfig(Section):
    """Which credentials are asked for, and where they are known from; and what keeps tenants apart in prefix caches."""

    mode: Annotated[Literal["off", "keys", "jwt", "keys+jwt"], BeforeValidator(_as_written)] = "off"
    keys: Literal["file", "shared", "file+shared"] = "file"  # where keys are known from; shared: the state of all replicas
    keys_file: Text = "lexora_keys.jsonl"  # made and edited by `lexora keys`
    forwarded: tuple[Network, ...] = Field(default=(), max_length=MAX_ITEMS)  # gRPC peers that are believed without a proof
    facade_key_env: EnvName | None = None  # of `lexora gateway`: the variable with its own key
    jwt: tuple[JwtProvider, ...] = Field(default=(), max_length=MAX_PROVIDERS)  # issuers of tokens
    cache_salt_secret: Annotated[Secret, AfterValidator(_long)] | None = None  # None: a random one of this process
    cache_salt_secret_env: EnvName | None = None
    share_prefix_cache: tuple[Annotated[tuple[Text, ...], Field(min_length=1, max_length=MAX_ITEMS)], ...] = Field(
        default=(), max_length=MAX_ITEMS
    )  # groups of tenants (patterns) whose prompts share a cache
    certificates: dict[Text, CertificateConfig] = Field(default={}, max_length=MAX_ITEMS)  # by name (SAN), or a glob of it

    @model_validator(mode="after")
    def _cross_check(self) -> Self:
        refuse(auth_faults(self.model_dump()))
        return self

    @property
    def enabled(self) -> bool:
        """Whether callers must show a credential."""
        return self.mode != "off"

    @property
    def takes_keys(self) -> bool:
        """Whether keys are taken."""
        return self.mode in ("keys", "keys+jwt")

    @property
    def tokens(self) -> bool:
        """Whether tokens are taken."""
        return self.mode in _TOKEN_MODES

    def salt_secret(self, environ: Mapping[str, str] = os.environ) -> bytes:
        """Return the secret of cache salts, from the variable if it is set; empty when none is configured."""
        named = environ.get(self.cache_salt_secret_env, "") if self.cache_salt_secret_env else ""
        own = self.cache_salt_secret.get_secret_value() if self.cache_salt_secret else ""
        return (named.strip() or own).encode()


def auth_faults(auth: Mapping[str, Any]) -> Iterator[Fault]:
    """Yield what a mode lacks, and what is wrong across the keys of a provider, with paths relative to auth."""
    providers = auth.get("jwt")
    if auth.get("mode") in _TOKEN_MODES and not providers:
        yield ("jwt",), "is needed by this mode: name an issuer of tokens"
    yield from ((("jwt", *path), message) for path, message in jwt_faults(providers))
