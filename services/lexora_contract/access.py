"""Credentials that a caller may show, and scopes that it may have: the words that both sides of a port need."""

from collections.abc import Iterable, Iterator
from enum import StrEnum

# How each key of Lexora's own begins.
KEY_PREFIX = "sk-lx-"
# Headers of a request, and metadata of an rpc, that may hold a credential: RFC 6750, the Anthropic SDK, clients of Azure.
CREDENTIALS = ("authorization", "x-api-key", "api-key")
# Metadata in which a facade of its own process shows its router the key that makes it one.
FACADE = "x-lexora-facade"
# What a proxy or a facade says of its clients.
FORWARDED = frozenset({"x-forwarded-for", "x-lexora-user", "x-lexora-tenant"})
# Takes their place where its sender is not believed: the call is not its own, and whose it is is not known.
UNPROVEN = ("x-lexora-unproven", "1")
# Of a question that a page of another origin asks: where its browser is says nothing of the page.
FOREIGN_PAGE = ("x-lexora-foreign-page", "1")


class Scope(StrEnum):
    """A part of the contract that is granted as a whole. OPEN is for everybody, KNOWN for every credential that holds."""

    OPEN = "open"
    KNOWN = "known"
    CALL = "call"  # ask models, and list them
    OBSERVE = "observe"  # statistics, recent calls, explanations, metrics
    ADMIN = "admin"  # change what the gateway does, and the keys of others
    FACADE = "facade"  # pass on calls of others, with their addresses and users

    __hash__ = str.__hash__  # that of Enum is a function of Python


SCOPES = frozenset(Scope)


def certificate_names(dns: Iterable[str], uris: Iterable[str], emails: Iterable[str]) -> tuple[str, ...]:
    """The names (SAN) in a client's certificate, as they are compared: each looks like its kind, or it does not count.

    So a DNS name cannot be taken for an address or a URI, whatever an authority lets into one.
    """
    return tuple(_fitting(dns, uris, emails))


def _fitting(dns: Iterable[str], uris: Iterable[str], emails: Iterable[str]) -> Iterator[str]:
    yield from (name for name in uris if "://" in name)
    yield from (name.lower() for name in dns if not {"@", ":", "/"} & set(name))
    yield from (name for name in emails if "@" in name and "://" not in name)
