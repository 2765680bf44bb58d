"""Which issuers' tokens are taken, where their keys are, and what their claims mean."""

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, Strict

from lexora_router.config.check import Fault
from lexora_router.config.granted import Granted
from lexora_router.config.section import Section
from lexora_router.config.values import (
    Flag,
    OperationPattern,
    Seconds,
    TenantName,
    Text,
    split_address,
)

MAX_PROVIDERS = 64
MAX_RULES = 256
MAX_PATTERNS = 256
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
ScopeWord = Literal["call", "observe", "admin"]
SCOPE_WORDS: dict[str, tuple[ScopeWord, ...]] = {
    "lexora:call": ("call",),
    "lexora:observe": ("observe",),
    "lexora:admin": ("admin",),
}
Algorithm = Literal["RS256", "ES256", "EdDSA"]


def _name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ValueError("is 1 to 64 letters, digits, '.', '_' or '-', and begins with no sign")
    return name


def _address(url: str) -> str:
    """Check an address that keys are read from; http is for `allow_http` to permit."""
    if not url.isascii():
        raise ValueError("is not an address: a host that is not ASCII is written in its xn-- form")
    parts = split_address(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError("must begin with https:// and a host")
    if "@" in parts.netloc or "#" in url:
        raise ValueError("must not contain a user, a password or '#'")
    return url


def _one_or_many(value: object) -> object:
    return [value] if isinstance(value, str) else value


Address = Annotated[str, Strict(), AfterValidator(_address)]
Leeway = Annotated[float, Strict(), Field(ge=0, le=600, allow_inf_nan=False)]
ProviderName = Annotated[str, Strict(), AfterValidator(_name)]
Texts = Annotated[tuple[Text, ...], BeforeValidator(_one_or_many)]
Patterns = Annotated[Texts, Field(max_length=MAX_PATTERNS)]
Operations = Annotated[tuple[OperationPattern, ...], BeforeValidator(_one_or_many), Field(max_length=MAX_PATTERNS)]
Scopes = Annotated[tuple[ScopeWord, ...], BeforeValidator(_one_or_many)]


class ClaimNames(Section):
    """Which claim of a token says what. A name, or a path of names with dots. None: no claim does."""

    subject: Text = "sub"
    tenant: Text | None = None
    name: Text | None = None
    models: Text | None = None
    operations: Text | None = None
    scopes: Text | None = None
    priority: Text | None = None
    max_priority: Text | None = None
    rate: Text | None = None
    burst: Text | None = None
    tokens_per_minute: Text | None = None
    max_concurrent: Text | None = None


class TokenRule(Granted):
    """What tokens get in which each claim of `when` has, or contains, its value. None: as the claims have it."""

    when: dict[Text, Text] = Field(min_length=1, max_length=16)
    tenant: TenantName | None = None
    models: Patterns | None = Field(default=None, min_length=1)
    operations: Operations | None = Field(default=None, min_length=1)
    scopes: Scopes | None = None


class JwtProvider(Section):
    """One issuer of tokens."""

    issuer: Text
    audience: Annotated[Texts, Field(min_length=1, max_length=16)]
    name: ProviderName | None = None  # default: the issuer's host
    jwks_url: Address | None = None
    jwks_file: Text | None = None
    revoked_file: Text | None = None  # ids (`jti`) of tokens that hold no more
    discovery: Flag = False  # the issuer's /.well-known/openid-configuration names the address of the keys
    algorithms: Annotated[tuple[Algorithm, ...], Field(min_length=1)] = ("RS256", "ES256", "EdDSA")
    leeway: Leeway = 30.0
    refresh: Seconds = 600.0
    cooldown: Seconds = 5.0
    timeout: Seconds = 5.0
    max_stale: Seconds = 86400.0
    allow_http: Flag = False
    allow_private: Flag = False
    ca_file: Text | None = None
    tenant: TenantName | None = None  # of tokens without a claim for it
    tenants: Patterns = ()  # that it may name; none: any
    claims: ClaimNames = ClaimNames()
    scopes: dict[Text, Scopes] = Field(default={}, max_length=MAX_RULES)  # word of claims.scopes -> scopes; none: SCOPE_WORDS
    rules: tuple[TokenRule, ...] = Field(default=(), max_length=MAX_RULES)

    @property
    def label(self) -> str:
        """Its name in logs, and before the subjects of its tokens."""
        return self.name or label_of(self.issuer)


def jwt_faults(providers: Any) -> Iterator[Fault]:
    """Yield what a list of providers lacks, and two that are alike, with paths relative to it. Skips what has a wrong type."""
    issuers, labels = set[str](), set[str]()
    for index, provider in enumerate(providers if isinstance(providers, list | tuple) else ()):
        if not isinstance(provider, Mapping):
            continue
        yield from (((index, *path), message) for path, message in _provider_faults(provider))
        issuer, name = provider.get("issuer"), provider.get("name")
        if not isinstance(issuer, str):
            continue
        alike = issuer.rstrip("/").casefold()  # nothing but a slip makes two issuers that differ by these alone
        if alike in issuers:
            yield (index, "issuer"), "two providers have this issuer: which keys its tokens need would be a guess"
        label = name if isinstance(name, str) else label_of(issuer)
        if alike not in issuers and label in labels:
            yield (index, "name"), "two providers have this name: their subjects would be the same; give each a name"
        issuers.add(alike)
        labels.add(label)


def _provider_faults(provider: Mapping[str, Any]) -> Iterator[Fault]:
    sources = [key for key in ("jwks_url", "jwks_file", "discovery") if provider.get(key)]
    if len(sources) != 1:
        yield (), "needs one of jwks_url, jwks_file and discovery: true"
    issuer, url = provider.get("issuer"), provider.get("jwks_url")
    if provider.get("discovery") is True and isinstance(issuer, str):
        try:
            _address(issuer)
        except ValueError as error:
            yield ("issuer",), f"{error} (needed by discovery)"
    addresses = {"jwks_url": url, "issuer": issuer if provider.get("discovery") is True else None}
    if provider.get("allow_http") is not True:
        for key, address in addresses.items():
            if isinstance(address, str) and address.startswith("http://"):
                yield (
                    (key,),
                    "must begin with https://, unless allow_http is true: keys that can be changed on their way prove nothing",
                )
    claims, rules = provider.get("claims"), provider.get("rules")
    by_rule = isinstance(rules, list | tuple) and any(isinstance(rule, Mapping) and rule.get("tenant") for rule in rules)
    if not (provider.get("tenant") or by_rule or (isinstance(claims, Mapping) and claims.get("tenant"))):
        yield ("claims", "tenant"), "is needed, or tenant: every call belongs to a tenant"


def label_of(issuer: str) -> str:
    """The host of an issuer, or the issuer itself where it is no address."""
    try:
        return urlsplit(issuer).hostname or issuer[:64]
    except ValueError:
        return issuer[:64]
