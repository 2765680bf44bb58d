"""Where a Valkey is: the address of `state.url`, taken apart."""

from dataclasses import dataclass, field, replace
from enum import Enum
from urllib.parse import unquote, urlsplit

MAX_LENGTH = 2048
MAX_HOSTS = 64
_PORT, _SENTINEL_PORT = 6379, 26379
_SCHEMES = {"valkey": False, "redis": False, "valkeys": True, "rediss": True}  # whether it is TLS


class Kind(Enum):
    """What the hosts of an address are."""

    SERVER = "server"
    SENTINELS = "sentinel"
    CLUSTER = "cluster"


@dataclass(frozen=True, slots=True)
class Address:
    """`service` is the name that Sentinels have for the servers; `database` is a number."""

    kind: Kind
    tls: bool
    hosts: tuple[tuple[str, int], ...]
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    service: str = ""
    database: int = 0

    def signed_in(self, password: str) -> "Address":
        """The same with this password."""
        return replace(self, password=password)

    @property
    def shown(self) -> str:
        """The address without a user or a password."""
        scheme = "valkeys" if self.tls else "valkey"
        if self.kind is not Kind.SERVER:
            scheme += f"+{self.kind.value}"
        path = f"/{self.service}" if self.service else ""
        return f"{scheme}://{','.join(place(*host) for host in self.hosts)}{path}{f'/{self.database}' if self.database else ''}"


def place(host: str, port: int) -> str:
    """host:port for people."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def parse(url: str) -> Address:
    """Take an address apart. Raises ValueError, whose text repeats nothing of it.

    `valkey://[USER[:PASSWORD]@]HOST[:PORT][/DATABASE]`, `valkeys://` for TLS; redis:// and rediss:// are the same;
    `valkey+sentinel://HOST,HOST/SERVICE[/DATABASE]`; `valkey+cluster://HOST,HOST`.
    """
    if not url.isprintable() or " " in url or len(url) > MAX_LENGTH:
        raise ValueError("is not an address: it has spaces or control characters, or is over 2048 characters")
    try:
        parts = urlsplit(url)
    except ValueError:
        raise ValueError("is not an address") from None
    scheme, _, suffix = parts.scheme.partition("+")
    kinds = {"": Kind.SERVER, "sentinel": Kind.SENTINELS, "cluster": Kind.CLUSTER}
    if scheme not in _SCHEMES or suffix not in kinds:
        raise ValueError("must begin with valkey:// or valkeys:// (TLS), or valkey+sentinel:// or valkey+cluster://")
    if parts.query or parts.fragment:
        raise ValueError("must not contain '?' or '#': write those of a password as %3F and %23")
    kind = kinds[suffix]
    signs, _, hosts = parts.netloc.rpartition("@")
    user, _, password = signs.partition(":")
    service, database = _path(kind, parts.path)
    return Address(
        kind,
        _SCHEMES[scheme],
        _hosts(hosts, kind),
        unquote(user) or None,
        unquote(password) or None,
        service,
        database,
    )


def _hosts(text: str, kind: Kind) -> tuple[tuple[str, int], ...]:
    usual = _SENTINEL_PORT if kind is Kind.SENTINELS else _PORT
    found = []
    for each in text.split(","):
        try:
            parts = urlsplit(f"//{each}")
            host, port = parts.hostname, parts.port
        except ValueError:
            raise ValueError("is not an address: bad host or port") from None
        if not host:
            raise ValueError("has no host")
        found.append((host, usual if port is None else port))
    if kind is Kind.SERVER and len(found) > 1:
        raise ValueError("has several hosts: write valkey+sentinel:// or valkey+cluster://")
    if len(found) > MAX_HOSTS:
        raise ValueError(f"has more than {MAX_HOSTS} hosts")
    return tuple(found)


def _path(kind: Kind, path: str) -> tuple[str, int]:
    parts = [unquote(part) for part in path.split("/") if part]
    service = ""
    if kind is Kind.SENTINELS:
        if not parts:
            raise ValueError("names no service: valkey+sentinel://HOST:26379/SERVICE, as the Sentinels have it")
        service = parts.pop(0)
    if not parts:
        return service, 0
    database = parts.pop()
    if parts or not (database.isascii() and database.isdecimal() and len(database) <= 5):
        raise ValueError("may have the number of a database behind the host, and nothing else")
    if kind is Kind.CLUSTER and database != "0":
        raise ValueError("has a database: a cluster has one, without a number")
    return service, int(database)
