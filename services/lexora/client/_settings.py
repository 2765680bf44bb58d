"""Where the router is, and how long and how often it is asked."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field

import grpc

from lexora.client._channel import Metadata, tls_credentials

_MIB = 2**20
_WORDS = {"": False, "0": False, "false": False, "no": False, "off": False, "1": True, "true": True, "yes": True, "on": True}
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
    router says that this makes sense (RetryInfo); `user` and `priority` are the defaults of CallOptions. `api_key` goes with
    every call, the stubs' included; without TLS it can be read on its way. Raises ValueError for a key that no header can
    carry.
    """

    target: str = "127.0.0.1:50051"
    credentials: grpc.ChannelCredentials | None = field(default=None, repr=False)
    timeout: float | None = 600.0
    retries: int = 2
    user: str = ""
    priority: int | None = None
    api_key: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        if not (self.api_key.isascii() and self.api_key.isprintable()) or " " in self.api_key:
            raise ValueError("api_key must be printable ASCII without spaces")

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> "Settings":
        """Settings from LEXORA_TARGET, _API_KEY, _CA, _CERT and _KEY (files; each turns TLS on), _TLS (true: with grpc's own
        authorities), _TIMEOUT (`none`: no limit), _RETRIES, _USER and _PRIORITY.

        What is not set keeps its default; LEXORA_CA_FILE is the old name of LEXORA_CA. Raises ValueError, which names the
        variable.
        """
        given = os.environ if environ is None else environ
        settings = cls()
        timeout = settings.timeout
        if text := given.get("LEXORA_TIMEOUT", ""):
            timeout = None if text.lower() == "none" else _number(text, "LEXORA_TIMEOUT")
        priority, api_key = given.get("LEXORA_PRIORITY", ""), given.get("LEXORA_API_KEY", "").strip()
        return cls(
            target=given.get("LEXORA_TARGET") or settings.target,
            credentials=_credentials(given),
            timeout=timeout,
            retries=int(_number(given.get("LEXORA_RETRIES") or str(settings.retries), "LEXORA_RETRIES")),
            user=given.get("LEXORA_USER", ""),
            priority=int(_number(priority, "LEXORA_PRIORITY")) if priority else None,
            api_key=api_key,
        )

    @property
    def metadata(self) -> Metadata:
        """What each call carries."""
        return (("authorization", f"Bearer {self.api_key}"),) if self.api_key else ()

    def channel_options(self) -> list[tuple[str, int]]:
        """Options of the gRPC channel."""
        return list(_CHANNEL)


def _credentials(given: Mapping[str, str]) -> grpc.ChannelCredentials | None:
    named = {name: given.get(f"LEXORA_{name.upper()}") or None for name in ("ca", "cert", "key")}
    named["ca"] = named["ca"] or given.get("LEXORA_CA_FILE") or None
    wanted = given.get("LEXORA_TLS", "").strip().lower()
    if wanted not in _WORDS:
        raise ValueError("LEXORA_TLS must be true or false")
    if not any(named.values()) and not _WORDS[wanted]:
        return None
    try:
        return tls_credentials(**named)
    except ValueError as error:
        names = (name for name in ("LEXORA_CA", "LEXORA_CA_FILE", "LEXORA_CERT", "LEXORA_KEY") if given.get(name))
        named_by = next((name for name in names if given[name] in str(error)), "LEXORA_CA")
        raise ValueError(f"{named_by}: {error}") from None


def _number(text: str, name: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise ValueError(f"{name} must be a number that is not negative, not {text!r}")
    return value
