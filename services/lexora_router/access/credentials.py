"""Which credential a caller shows: of several headers one, and never the address."""

from lexora_contract.access import CREDENTIALS
from lexora_contract.port import CallContext
from lexora_router.errors import Unauthenticated

MAX_CREDENTIAL = 16 * 1024
_BEARER = "bearer"
_SHOWN = "`Authorization: Bearer KEY`, `x-api-key: KEY` or `api-key: KEY`"
_NAMES = frozenset(CREDENTIALS)


def credential_of(context: CallContext) -> str:
    """The credential in the context's metadata, empty for none.

    Raises Unauthenticated for several different ones, and for one that is too long or no `Bearer`. The same one under two names
    counts once.
    """
    found = ""
    for name, value in context.metadata:
        if name not in _NAMES:
            continue
        credential = _bearer(value) if name == "authorization" else value.strip()
        if found and credential and credential != found:
            raise Unauthenticated("Several different credentials were sent; send one.", "several")
        found = credential or found
    if len(found) > MAX_CREDENTIAL:
        raise Unauthenticated(f"The credential is longer than {MAX_CREDENTIAL} characters.", "malformed")
    return found


def missing() -> Unauthenticated:
    """No credential was shown."""
    return Unauthenticated(f"No credentials were sent. Send a key as {_SHOWN}.", "missing")


def _bearer(value: str) -> str:
    if value.startswith("Bearer "):  # as nearly all write it
        return value[7:].strip()
    scheme, _, credential = value.strip().partition(" ")
    if scheme.lower() != _BEARER:
        if not scheme:
            return ""
        raise Unauthenticated("The Authorization header must be `Bearer KEY`; no other scheme is taken.", "malformed")
    return credential.strip()
