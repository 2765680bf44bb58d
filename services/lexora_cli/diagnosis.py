"""What a backend's failure means, and what to do about it."""

import socket
import ssl
from dataclasses import dataclass

from lexora_router.engines.transport import ConnectError, TransportError


@dataclass(frozen=True, slots=True)
class Trouble:
    """What is wrong, and what to do."""

    problem: str
    advice: str


def of_failure(error: TransportError | TimeoutError | OSError, section: str, seconds: float) -> Trouble:
    """A request that got no answer. `section` is the backend's key path, `seconds` the time it was given."""
    match error:
        case ConnectError():
            return _of_connect(error, section)
        case TransportError():
            return Trouble(str(error), f"see the engine's log; is {section}.url the address of an HTTP server?")
        case TimeoutError():
            return Trouble(f"no answer within {seconds:g} s", "the engine is loading, overloaded or stuck: see its log")
    # What is left has met no network: the TLS settings could not be read.
    return Trouble(f"ca_file cannot be used: {error.strerror or error}", f"correct {section}.ca_file")


def of_status(status: int, section: str, path: str, *, usual: bool) -> Trouble:
    """An answer that says that calls would fail; `usual`: every engine of the backend's type has a path for its health."""
    problem = f"{path} was answered {status}"
    if status in (401, 403):
        return Trouble(problem, f"the key was refused: set {section}.api_key_env to the variable that holds a valid one")
    if status == 404:
        kind = f"another kind of server? set {section}.type: openai_compatible, or " if usual else "set "
        return Trouble(problem, f"{kind}another {section}.health_path")
    if status < 400:
        return Trouble(problem, f"the engine redirects: name its final address in {section}.url")
    return Trouble(problem, "the engine says that it is not well: see its log")


def _of_connect(error: ConnectError, section: str) -> Trouble:
    cause = error.__cause__
    if isinstance(cause, ssl.SSLError):
        return Trouble(
            str(error), f"name the engine's authority in {section}.ca_file; an engine without TLS has an http:// url"
        )
    if isinstance(cause, socket.gaierror):
        return Trouble("the host name is unknown", f"correct {section}.url")
    # A name with several addresses gives one error for all of them, without a type of its own.
    if isinstance(cause, ConnectionRefusedError) or "Connect call failed" in str(cause):
        return Trouble("connection refused: nothing listens there", f"start the engine, or correct {section}.url")
    return Trouble(str(error), f"check the network, its firewalls, and {section}.url")
