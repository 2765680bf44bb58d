"""Where replicas of one gateway share what they know."""

import os
import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Self

from pydantic import AfterValidator, Field, SecretStr, model_validator

from lexora_router.config.check import Fault
from lexora_router.config.positions import Tree
from lexora_router.config.problems import Path
from lexora_router.config.section import Section, refuse
from lexora_router.config.tls_files import BadTlsFile, read_authorities, read_pair
from lexora_router.config.values import EnvName, Text
from lexora_router.state.address import Address, parse

_NAMESPACE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class SecretUrl(SecretStr):
    """An address that may have a password; `shown` is without one."""

    @property
    def shown(self) -> str:
        """For people and dumps."""
        return parse(self.get_secret_value()).shown


def _store_url(url: SecretUrl) -> SecretUrl:
    parse(url.get_secret_value())
    return url


def _namespace(name: str) -> str:
    if not _NAMESPACE.fullmatch(name):
        raise ValueError("must be 1 to 64 letters, digits, '.', '_' or '-', and begin with no sign")
    return name


class StateTlsConfig(Section):
    """TLS to the store, for a `url` that asks for it. Files are PEM."""

    ca: Text | None = None  # None: the system's authorities
    cert: Text | None = None  # what the gateway shows
    key: Text | None = None  # None: in `cert`


class StateConfig(Section):
    """The store that replicas share. Without a `url` a process keeps all to itself."""

    url: Annotated[SecretUrl, AfterValidator(_store_url)] | None = None
    password_env: EnvName | None = None  # the variable with the password, instead of one in the url
    timeout: Annotated[float, Field(strict=True, ge=0.005, le=1.0, allow_inf_nan=False)] = 0.05  # of one exchange
    namespace: Annotated[str, AfterValidator(_namespace)] = "lexora"  # of replicas that belong together
    tls: StateTlsConfig = StateTlsConfig()

    @model_validator(mode="after")
    def _cross_check(self) -> Self:
        refuse(state_faults(self.model_dump()))
        return self

    def address(self, environ: Mapping[str, str] = os.environ) -> Address | None:
        """Where the store is, and how to sign in; None without one."""
        if self.url is None:
            return None
        address = parse(self.url.get_secret_value())
        password = environ.get(self.password_env, "").strip() if self.password_env else ""
        return address.signed_in(password) if password else address


def state_faults(state: Mapping[str, Any]) -> Iterator[Fault]:
    """Yield keys that have no effect without another one, with paths relative to `state`."""
    tls = state.get("tls")
    tls = tls if isinstance(tls, Mapping) else {}
    if tls.get("key") is not None and tls.get("cert") is None:
        yield ("tls", "key"), "needs state.tls.cert, the certificate that it belongs to"
    url = state.get("url")
    text = url.get_secret_value() if isinstance(url, SecretStr) else url
    if not isinstance(text, str):
        return
    try:
        secured = parse(text).tls
    except ValueError:
        return  # the key's own fault
    if not secured:
        for name in ("ca", "cert", "key"):
            if tls.get(name) is not None:
                yield ("tls", name), "has no effect: state.url is without TLS; write valkeys://"


def check_state(state: StateConfig, tree: Tree) -> None:
    """Note a problem for every file of state.tls that cannot be used."""
    for key, read in (("ca", read_authorities), ("cert", lambda file: read_pair(file, state.tls.key))):
        file = getattr(state.tls, key)
        try:
            if file is not None:
                read(file)
        except BadTlsFile as error:
            path: Path = ("state", "tls", error.key)
            tree.fail(tree.where(path), str(error), path)


def state_warnings(state: StateConfig, environ: Mapping[str, str]) -> Iterator[tuple[Path, str]]:
    """Yield what is probably not meant, with its path."""
    if state.password_env and state.url is not None and not environ.get(state.password_env, "").strip():
        yield ("state", "password_env"), f"{state.password_env} is not set in the environment: the store may refuse to sign in"
