"""Where the router is, and how long and how often it is asked."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field

import grpc

_MIB = 2**20
_CHANNEL = (
    ("grpc.max_receive_message_length", 256 * _MIB),
    ("grpc.max_send_message_length", 64 * _MIB),
    # An engine's own error body travels in the trailing metadata.
    ("grpc.max_metadata_size", 2 * _MIB),
    ("grpc.absolute_max_metadata_size", 2 * _MIB),
    # Long silent calls through balancers that drop connections without traffic.
    ("grpc.keepalive_time_ms", 30_000),
    # An internal service: no proxy from the environment.
    ("grpc.enable_http_proxy", 0),
    ("grpc.max_reconnect_backoff_ms", 2_000),
)


@dataclass(frozen=True)
class Settings:
    """What a client is made of.

    `target` is host:port, unix:path or any other target of gRPC; `credentials` are those of the channel, None for no TLS;
    `timeout` is the deadline of a call in seconds, None for no limit; `retries` bounds how often a call is repeated when the
    router says that this makes sense (RetryInfo); `user` and `priority` are the defaults of CallOptions.
    """

    target: str = "127.0.0.1:50051"
    credentials: grpc.ChannelCredentials | None = field(default=None, repr=False)
    timeout: float | None = 600.0
    retries: int = 2
    user: str = ""
    priority: int | None = None

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> "Settings":
        """Settings from LEXORA_TARGET, _CA_FILE (turns TLS on), _TIMEOUT (`none`: no limit), _RETRIES, _USER and _PRIORITY.

        What is not set keeps its default. Raises ValueError, which names the variable.
        """
        given = os.environ if environ is None else environ
        settings = cls()
        timeout = settings.timeout
        if text := given.get("LEXORA_TIMEOUT", ""):
            timeout = None if text.lower() == "none" else _number(text, "LEXORA_TIMEOUT")
        priority, ca_file = given.get("LEXORA_PRIORITY", ""), given.get("LEXORA_CA_FILE", "")
        return cls(
            target=given.get("LEXORA_TARGET") or settings.target,
            credentials=_credentials(ca_file) if ca_file else None,
            timeout=timeout,
            retries=int(_number(given.get("LEXORA_RETRIES") or str(settings.retries), "LEXORA_RETRIES")),
            user=given.get("LEXORA_USER", ""),
            priority=int(_number(priority, "LEXORA_PRIORITY")) if priority else None,
        )

    def channel_options(self) -> list[tuple[str, int]]:
        """Options of the gRPC channel."""
        return list(_CHANNEL)


def _credentials(ca_file: str) -> grpc.ChannelCredentials:
    try:
        with open(ca_file, "rb") as file:
            return grpc.ssl_channel_credentials(file.read())
    except OSError as error:
        raise ValueError(f"LEXORA_CA_FILE: cannot read {ca_file}: {error.strerror}") from None


def _number(text: str, name: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise ValueError(f"{name} must be a number that is not negative, not {text!r}")
    return value
