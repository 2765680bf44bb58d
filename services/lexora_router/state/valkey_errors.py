"""What an error of the store means for an operator. No text has a user or a password."""

import os
import socket
import ssl

from valkey import exceptions

_NO_RIGHT = "does not let its user do this (ACL; docs/operations.md has the line): {error}"
# The class of the error, words in it, and what it says.
_REFUSALS: tuple[tuple[type[Exception], str, str], ...] = (
    (exceptions.AuthenticationError, "", "refuses the user or the password of state.url"),
    (exceptions.NoPermissionError, "", _NO_RIGHT),
    (exceptions.ResponseError, "ACL failure", _NO_RIGHT),  # of a command in the function
    (exceptions.ResponseError, "The user executing the script", _NO_RIGHT),  # the same of Redis 7
    (exceptions.ResponseError, "MOVED ", "has moved the keys to another server of its cluster"),
    (exceptions.ResponseError, "CLUSTERDOWN", "is a cluster that is not whole"),
    (exceptions.ResponseError, "unknown command", "is too old: it must be Valkey 8 or Redis 7, or newer"),
    (exceptions.OutOfMemoryError, "", "is out of memory: raise its maxmemory"),
    (exceptions.ReadOnlyError, "", "is a read-only replica: name the primary, or the Sentinels with valkey+sentinel://"),
    (exceptions.BusyLoadingError, "", "is reading its data from disk"),
    (exceptions.ResponseError, "", "answers: {error}"),
)
_MOST = 300


def explained(error: Exception) -> str:
    """One line for what went wrong. It has no address: /health shows it to all callers."""
    cause = _cause(error)
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"the store's certificate is refused: {cause.verify_message} (state.tls.ca names the authorities)"
    if isinstance(cause, ssl.SSLError):
        reason = (cause.reason or "handshake failed").lower().replace("_", " ")
        return f"TLS with the store fails: {reason} (valkey:// is without TLS, valkeys:// with it)"
    if isinstance(cause, socket.gaierror):
        return "the name of the store's host cannot be resolved"
    if isinstance(cause, OSError):
        return f"the store cannot be reached: {os.strerror(cause.errno) if cause.errno else type(cause).__name__}"
    for kind, words, text in _REFUSALS:
        if isinstance(error, kind) and words in str(error):
            return f"the store {text.format(error=str(error)[:_MOST])}"
    return "the connection to the store was lost"


def _cause(error: BaseException) -> BaseException | None:
    """What lies below the library's own error, if it is of the connection."""
    if isinstance(error, OSError):
        return error
    return (
        error.__cause__ or error.__context__
        if isinstance(error, exceptions.ConnectionError | exceptions.TimeoutError)
        else None
    )
