"""What an operator should know of issuers of tokens, and of networks that need no credentials."""

from collections.abc import Iterator

from lexora_router.config.models import Config
from lexora_router.config.problems import Path
from lexora_router.config.regular_file import open_regular

IN_THE_CLEAR = "the keys of this issuer are read in the clear: whatever is on their way can sign tokens"
UNREADABLE = "cannot be read now ({}): until it can, tokens of this issuer are answered 503"
NO_EFFECT = "has no effect: no credentials are asked for (auth.mode: off)"
NO_TENANT = "has no effect: with credentials no tenant has a '/' in its name; a user of a tenant has rate_limit.users"


def access_warnings(config: Config) -> Iterator[tuple[Path, str]]:
    """Yield key path and message of each thing that is allowed and probably not meant."""
    if config.admin.allow and not config.auth.enabled:
        yield ("admin", "allow"), NO_EFFECT
    for name in config.tenants if config.auth.enabled else ():
        if "/" in name:
            yield ("tenants", name), NO_TENANT
    for index, provider in enumerate(config.auth.jwt if config.auth.tokens else ()):
        path: Path = ("auth", "jwt", index)
        if provider.allow_http and (provider.jwks_url or provider.issuer).startswith("http://"):
            yield (*path, "allow_http"), IN_THE_CLEAR
        if provider.jwks_file is not None and (fault := _fault(provider.jwks_file)):
            yield (*path, "jwks_file"), UNREADABLE.format(fault)
        if provider.revoked_file is not None and (fault := _fault(provider.revoked_file)):
            yield (*path, "revoked_file"), UNREADABLE.format(fault)


def _fault(file: str) -> str:
    try:
        with open_regular(file):
            return ""
    except OSError as error:
        return error.strerror or type(error).__name__
