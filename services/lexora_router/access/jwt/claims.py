"""From the claims of a verified token to its principal, as the provider's configuration maps them.

A claim that the mapping names and that has the wrong form is a refusal: to read it as "no limit" would open what it closes.
"""

from collections.abc import Mapping
from typing import Any

from lexora_contract.access import Scope
from lexora_contract.priority import parse_priority
from lexora_router.config.jwt import SCOPE_WORDS, JwtProvider, TokenRule
from lexora_router.config.values import tenant_name
from lexora_router.errors import Unauthenticated
from lexora_router.principal import Grants, Principal, matches

MAX_NAME = 256  # characters of a subject, a tenant, a pattern
MAX_WORDS = 256  # entries of a list
_MOST = 10**9
_SPACED = frozenset({"scope", "scp"})  # texts that are lists: RFC 6749, 3.3, RFC 8693, 4.2, and Entra ID
_GRANTS = ("rate", "burst", "tokens_per_minute", "max_concurrent", "priority", "max_priority")


def principal_of(claims: Mapping[str, Any], provider: JwtProvider) -> Principal:
    """The principal of a token. Raises Unauthenticated for claims that are missing or malformed."""
    rule = next((rule for rule in provider.rules if _fits(claims, rule)), None)
    names = provider.claims
    subject = _name(claims, names.subject)
    if not subject:
        raise Unauthenticated(f"The token has no claim `{names.subject}`, which names its subject.", "claims")
    return Principal(
        tenant=_tenant(claims, provider, rule),
        key=f"{provider.label}:{subject}",
        name=_name(claims, names.name) if names.name else "",
        models=_patterns(claims, names.models, None if rule is None else rule.models),
        operations=_patterns(claims, names.operations, None if rule is None else rule.operations),
        scopes=_scopes(claims, provider, rule),
        grants=Grants(**{name: _grant(claims, name, provider, rule) for name in _GRANTS}),
    )


def claim(claims: Mapping[str, Any], name: str) -> Any:
    """The value of a claim by its name, or else by the path that its dots make; None where it is missing.

    Names may have dots themselves: `kubernetes.io.namespace` is `namespace` in `kubernetes.io`. The longest name goes first.
    """
    if name in claims:
        return claims[name]
    end = name.rfind(".")
    while end > 0:
        inner = claims.get(name[:end])
        if isinstance(inner, Mapping) and (found := claim(inner, name[end + 1 :])) is not None:
            return found
        end = name.rfind(".", 0, end)
    return None


def _fits(claims: Mapping[str, Any], rule: TokenRule) -> bool:
    return all(wanted in _values(name, claim(claims, name)) for name, wanted in rule.when.items())


def _values(name: str, value: Any) -> tuple[str, ...]:
    """What a rule may ask of a claim: a text is one value, for a user may have chosen the words in it (a job title, a name)."""
    return (value,) if isinstance(value, str) and name not in _SPACED else _words(value)


def _words(value: Any) -> tuple[str, ...]:
    """What a claim says, entry by entry: a list, or words with spaces between them (RFC 8693, 4.2), or the whole text."""
    if isinstance(value, str):
        return (value, *value.split()[:MAX_WORDS])
    if isinstance(value, bool):
        return (str(value).lower(),)
    return tuple(each for each in value if isinstance(each, str)) if isinstance(value, list) else ()


def _tenant(claims: Mapping[str, Any], provider: JwtProvider, rule: TokenRule | None) -> str:
    if rule is not None and rule.tenant is not None:
        return rule.tenant
    named = _name(claims, provider.claims.tenant) if provider.claims.tenant else ""
    if named:
        try:
            tenant_name(named)
        except ValueError as error:
            raise Unauthenticated(f"The token's claim `{provider.claims.tenant}` names no tenant: {error}.", "claims") from None
    tenant = named or provider.tenant or ""
    if not tenant:
        raise Unauthenticated(
            f"The token has no claim `{provider.claims.tenant or 'tenant'}`, which names its tenant.", "claims"
        )
    if named and provider.tenants and not matches(provider.tenants, named):
        raise Unauthenticated("The token names a tenant that its issuer does not speak for.", "claims")
    return tenant


def _name(claims: Mapping[str, Any], name: str) -> str:
    value = claim(claims, name)
    if value is None:
        return ""
    if not isinstance(value, str) or not 0 < len(value) <= MAX_NAME or not value.isprintable() or value != value.strip():
        raise _malformed(name, f"a text of 1 to {MAX_NAME} printable characters")
    return value


def _patterns(claims: Mapping[str, Any], name: str | None, of_rule: tuple[str, ...] | None) -> tuple[str, ...]:
    """The patterns of a claim; those of a rule go before them. Never empty where a claim is configured: that would be all."""
    if of_rule is not None:
        return of_rule
    if name is None:
        return ()
    value = claim(claims, name)
    found = tuple(value.split()) if isinstance(value, str) else tuple(value) if isinstance(value, list) else ()
    if not 0 < len(found) <= MAX_WORDS or not all(isinstance(each, str) and 0 < len(each) <= MAX_NAME for each in found):
        raise _malformed(name, f"a list of 1 to {MAX_WORDS} texts")
    return found


def _scopes(claims: Mapping[str, Any], provider: JwtProvider, rule: TokenRule | None) -> frozenset[Scope]:
    """Those of the rule, else those of the claim, else the right to call."""
    name = provider.claims.scopes
    if rule is not None and rule.scopes is not None:
        words: tuple[str, ...] = rule.scopes
    elif name is not None:
        mapping = provider.scopes or SCOPE_WORDS
        words = tuple(scope for word in _words(claim(claims, name)) for scope in mapping.get(word, ()))
    else:
        words = (Scope.CALL,)
    return frozenset({Scope.OPEN, Scope.KNOWN, *map(Scope, words)})


def _grant(claims: Mapping[str, Any], name: str, provider: JwtProvider, rule: TokenRule | None) -> Any:
    """A limit: of the rule, else of the claim, else None, which is the tenant's."""
    by_rule, named = getattr(rule, name, None), getattr(provider.claims, name)
    value = by_rule if by_rule is not None else claim(claims, named) if named else None
    if value is None:
        return None
    if name.endswith("priority"):
        try:
            return parse_priority(str(value) if isinstance(value, int | str) and not isinstance(value, bool) else "")
        except ValueError:
            raise _malformed(named or name, "high, normal, low or a whole number from 0 to 100") from None
    kinds, form = ((int, float), "a number above 0") if name == "rate" else ((int,), "a whole number above 0")
    if isinstance(value, bool) or not isinstance(value, kinds) or not 0 < value <= _MOST:  # NaN is not above 0
        raise _malformed(named or name, form)
    return value


def _malformed(name: str, form: str) -> Unauthenticated:
    return Unauthenticated(f"The token's claim `{name}` must be {form}.", "claims")
