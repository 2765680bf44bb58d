"""Principals of clients that show a certificate, by the names (SAN) in it."""

from collections import OrderedDict
from collections.abc import Mapping

from lexora_contract.access import Scope
from lexora_contract.priority import WORDS
from lexora_router.config.client_certificates import CertificateConfig
from lexora_router.principal import Grants, Principal, matches

MAX_NAME = 128  # of a name, as the public part of a credential in logs
MAX_REMEMBERED = 4096


class CertificateNames:
    """Finds a principal by `auth.certificates`: the whole name goes before patterns, and these go in the order of the file."""

    def __init__(self, rules: Mapping[str, CertificateConfig]) -> None:
        folded = {_folded(pattern): rule for pattern, rule in rules.items()}
        self._whole = {name: rule for name, rule in folded.items() if not {"*", "?"} & set(name)}
        self._patterns = {name: rule for name, rule in folded.items() if name not in self._whole}
        self._found: OrderedDict[tuple[str, ...], Principal | None] = OrderedDict()

    def get(self, names: tuple[str, ...], /) -> Principal | None:
        """The principal of a verified certificate with these names; None where no rule has one of them."""
        if names not in self._found:
            self._found[names] = self._look_up(names)
            if len(self._found) > MAX_REMEMBERED:
                self._found.popitem(last=False)
        return self._found[names]

    def _look_up(self, names: tuple[str, ...]) -> Principal | None:
        for name in names:
            if (rule := self._whole.get(name)) is not None:
                return _principal(name, name, rule)
        for pattern, rule in self._patterns.items():
            for name in names:
                if matches((pattern,), name) and _of_one_kind(pattern, name):
                    return _principal(name, pattern, rule)
        return None


def _of_one_kind(pattern: str, name: str) -> bool:
    """A pattern of hosts is for no email and no URI that ends like one; one without a letter is for all."""
    return not pattern.strip("*?") or _kind(pattern) == _kind(name)


def _kind(text: str) -> str:
    return "uri" if "://" in text else "email" if "@" in text else "dns"


def _principal(name: str, pattern: str, rule: CertificateConfig) -> Principal:
    priority, highest = (WORDS[each] if isinstance(each, str) else each for each in (rule.priority, rule.max_priority))
    grants = Grants(rule.rate, rule.burst, rule.tokens_per_minute, rule.max_concurrent, priority, highest)
    scopes = frozenset(Scope(scope) for scope in rule.scopes) | {Scope.KNOWN}
    return Principal(rule.tenant, name[:MAX_NAME], pattern[:MAX_NAME], rule.models, rule.operations, scopes, grants)


def _folded(pattern: str) -> str:
    """DNS names have no case; what is written of them has."""
    return pattern.lower() if _kind(pattern) == "dns" else pattern
