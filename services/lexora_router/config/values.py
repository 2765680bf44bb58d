"""The value types of the configuration: each refuses nonsense at the key where it was written."""

import re
from ipaddress import ip_network
from typing import Annotated, Literal
from urllib.parse import SplitResult, urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, Strict

from lexora_contract.priority import HIGH, LOW, WORDS

WEEK = 7 * 24 * 3600.0  # no duration is longer: a larger number is a slip of the unit
MAX_ITEMS = 4096  # entries of one list or map
MAX_TENANT = 256
MAX_WORKERS = 512
_ENV_NAME = re.compile(r"[A-Z_][A-Z0-9_]{0,127}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
# Browsers write scheme and host in small letters, and leave out a scheme's own port. A `*` has a dot or a colon beside it:
# https://*example.com would match badexample.com, which another owner may have.
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://(?:(?:\*\.)?[a-z0-9_-]+(?:\.[a-z0-9_-]+)*|\[[0-9a-f:.]+\])(?::(?:[0-9]{1,5}|\*))?")
_HOST_NAME = re.compile(r"(?:\*\.)?[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*|\[[0-9A-Fa-f:.]+\]")
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,256}")


def _plain_text(text: str) -> str:
    if not text.isprintable():
        raise ValueError("must not contain control characters")
    if text != text.strip():
        raise ValueError("must not begin or end with a space")
    return text


def backend_name(name: str) -> str:
    """Check the name of a backend: it appears in headers, metric labels and environment variables."""
    if not _NAME.fullmatch(name):
        raise ValueError("a backend's name is 1 to 64 letters, digits, '.', '_' or '-', and begins with no sign")
    return name


def tenant_name(name: str) -> str:
    """Check the name of a tenant that credentials make: `acme/bob` is the user bob of tenant acme (`rate_limit.users`)."""
    if not 0 < len(name) <= MAX_TENANT:
        raise ValueError(f"a tenant's name has 1 to {MAX_TENANT} characters")
    if "/" in name:
        raise ValueError("a tenant's name must not contain '/', which stands between a tenant and its user in rate_limit.users")
    if not name.isprintable():
        raise ValueError("a tenant's name must not contain control characters")
    return name


def operation_pattern(pattern: str) -> str:
    """Check a pattern of operations, which are paths: a word would fit none."""
    if pattern[:1] not in ("/", "*", "?"):
        raise ValueError(f"operations are paths, such as /v1/chat/*, and {pattern!r} would be none")
    return pattern


def header_safe(key: str) -> bool:
    """Whether an engine's key can travel in a header: printable ASCII without spaces, not empty."""
    return bool(key) and key.isascii() and key.isprintable() and " " not in key


def _header_safe(secret: SecretStr) -> SecretStr:
    if not header_safe(secret.get_secret_value()):
        raise ValueError("must be printable ASCII without spaces, and not empty")
    return secret


def _env_name(name: str) -> str:
    # Capitals only: then a key that was pasted here is refused, and no warning or dump shows it.
    if not _ENV_NAME.fullmatch(name):
        raise ValueError("must name an environment variable, in capitals, digits and '_' (it is not the key itself)")
    return name


def split_address(url: str) -> SplitResult:
    """The parts of an address; raises ValueError for what is none. The message never repeats the address."""
    if not url.isprintable() or " " in url or len(url) > 2048:
        raise ValueError("is not an address: it has spaces or control characters, or is over 2048 characters")
    try:
        parts = urlsplit(url)
        _ = parts.hostname, parts.port  # these raise as well
    except ValueError:
        raise ValueError("is not an address: bad host or port") from None
    return parts


def base_url(url: str) -> str:
    """Return the engine's base address, without a trailing slash and without the `/v1` that people paste.

    Raises ValueError when it is no plain http(s) address. The message never repeats the address.
    """
    parts = split_address(url)
    host = parts.hostname
    if parts.scheme not in {"http", "https"}:
        raise ValueError("must begin with http:// or https://")
    if not host:
        raise ValueError("has no host")
    if not _is_host(host):
        raise ValueError("is not an address: each part of a host name has 1 to 63 characters")
    if "@" in parts.netloc:
        raise ValueError("must not contain a user or a password, use api_key or api_key_env")
    if "?" in url or "#" in url:
        raise ValueError("must not contain '?' or '#'")
    return url.rstrip("/").removesuffix("/v1").rstrip("/")


def _is_host(host: str) -> bool:
    try:
        return bool(host.encode("idna"))
    except UnicodeError:
        return False


def _network(text: str) -> str:
    try:
        return str(ip_network(text))
    except ValueError:
        raise ValueError(
            "must be an address or a network, such as 10.0.0.0/8 or 2001:db8::/32, with no bits set behind it"
        ) from None


def _absolute_path(path: str) -> str:
    if not path.startswith("/") or path.startswith("//") or not path.isascii() or not path.isprintable() or " " in path:
        raise ValueError("must be a path that begins with one '/'")
    return path


def priority(value: object) -> object:
    """Check a priority: a word in any case, or a whole number, which may be text. Raises ValueError."""
    word = value.strip().lower() if isinstance(value, str) else value
    if isinstance(word, str) and re.fullmatch(r"[0-9]{1,3}", word):
        word = int(word)
    number = isinstance(word, int) and not isinstance(word, bool) and LOW <= word <= HIGH
    if not number and not (isinstance(word, str) and word in WORDS):
        raise ValueError(f"must be one of {', '.join(WORDS)}, or a whole number from 0 to 100")
    return word


def _origin(origin: str) -> str:
    """Check an origin as browsers send it; `*` in a host or port stands for any."""
    if not (origin in {"*", "null"} or _ORIGIN.fullmatch(origin)):
        raise ValueError("must be scheme://host or scheme://host:port in small letters, without a path, or * for all")
    return origin


def _host_name(name: str) -> str:
    if not _HOST_NAME.fullmatch(name):
        raise ValueError("must be a host name or an address without a port, such as llm.example.com, *.example.com or [::1]")
    return name


def _header_name(name: str) -> str:
    if not (name == "*" or _HEADER_NAME.fullmatch(name)):
        raise ValueError("must be the name of a header, or * for all")
    return name


def _resume(value: object) -> object:
    if not isinstance(value, bool) and value != "text":
        raise ValueError("must be true, false or text")
    return value


def _workers(value: object) -> object:
    number = isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MAX_WORKERS
    if not number and value != "auto":
        raise ValueError(f"must be a whole number from 1 to {MAX_WORKERS}, or auto")
    return value


# Scalars are strict: `port: true` and `name: 4` are slips, not values. The environment converts its strings itself.
Flag = Annotated[bool, Strict()]
Text = Annotated[str, Strict(), Field(min_length=1, max_length=1024), AfterValidator(_plain_text)]
OperationPattern = Annotated[Text, AfterValidator(operation_pattern)]
TenantName = Annotated[Text, AfterValidator(tenant_name)]
Prose = Annotated[str, Strict(), Field(max_length=16384)]
Origin = Annotated[str, Strict(), Field(max_length=1024), AfterValidator(_origin)]
HostName = Annotated[str, Strict(), Field(max_length=256), AfterValidator(_host_name)]
HeaderName = Annotated[str, Strict(), AfterValidator(_header_name)]
Url = Annotated[str, Strict(), AfterValidator(base_url)]
UrlPath = Annotated[str, Strict(), Field(max_length=1024), AfterValidator(_absolute_path)]
Network = Annotated[str, Strict(), AfterValidator(_network)]
Secret = Annotated[SecretStr, AfterValidator(_header_safe)]
BackendName = Annotated[str, Strict(), AfterValidator(backend_name)]
EnvName = Annotated[str, Strict(), AfterValidator(_env_name)]
Port = Annotated[int, Strict(), Field(ge=0, le=65535)]
Count = Annotated[int, Strict(), Field(ge=0, le=2**53)]
Positive = Annotated[int, Strict(), Field(ge=1, le=2**53)]
Percent = Annotated[int, Strict(), Field(ge=0, le=100)]
Number = Annotated[float, Strict(), Field(allow_inf_nan=False)]
Ratio = Annotated[float, Strict(), Field(ge=0, le=1, allow_inf_nan=False)]
Rate = Annotated[float, Strict(), Field(gt=0, le=1e9, allow_inf_nan=False)]  # per second
Seconds = Annotated[float, Strict(), Field(gt=0, le=WEEK, allow_inf_nan=False)]
Delay = Annotated[float, Strict(), Field(ge=0, le=WEEK, allow_inf_nan=False)]
# What may be written in two ways has a check of its own, since pydantic would report each way apart.
Priority = Annotated[int | Literal["high", "normal", "low"], BeforeValidator(priority)]
Resume = Annotated[bool | Literal["text"], BeforeValidator(_resume)]
Workers = Annotated[int | Literal["auto"], BeforeValidator(_workers)]
