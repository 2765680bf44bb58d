"""Whether the files of server.tls can be used, before a port is opened."""

from collections.abc import Iterator

from lexora_router.config.models import Config
from lexora_router.config.positions import Tree
from lexora_router.config.problems import Path, Problem
from lexora_router.config.tls_files import BadTlsFile, open_to_all, read_authorities, read_pair

_READABLE = "the private key may be read by every user of this machine: chmod o-rwx"
SERVER: Path = ("server", "tls")


def check_tls(config: Config, tree: Tree) -> None:
    """Note a problem for every file of server.tls that cannot be used."""
    tls = config.server.tls
    if tls.cert is None:
        return
    try:
        read_pair(tls.cert, tls.key)
    except BadTlsFile as error:
        _fail(tree, (*SERVER, error.key), error)
    if tls.client_ca is not None:
        try:
            read_authorities(tls.client_ca)
        except BadTlsFile as error:
            _fail(tree, (*SERVER, "client_ca"), error)


def check_engine_tls(config: Config, tree: Tree) -> None:
    """Note a problem for every client certificate of a backend that cannot be used."""
    for name, backend in config.backends().items():
        if backend.client_cert is None:
            continue
        try:
            read_pair(backend.client_cert, backend.client_key)
        except BadTlsFile as error:
            _fail(tree, ("routing", "backends", name, f"client_{error.key}"), error)


def engine_tls_warnings(config: Config, tree: Tree) -> Iterator[str]:
    """Yield what an operator should know about TLS to the engines."""
    for name, backend in config.backends().items():
        path: Path = ("routing", "backends", name)
        if not backend.verify:
            message = "the certificate is not checked: whatever answers there is believed, and gets the key and all prompts"
            yield _line(tree, (*path, "verify"), message)
        given = [key for key in ("ca_file", "client_cert", "server_name") if getattr(backend, key) is not None]
        if given and not backend.secured:
            yield _line(tree, (*path, given[0]), "has no effect: no address of the backend is https")
        if backend.client_cert is not None:
            key = ("client_key", backend.client_key) if backend.client_key is not None else ("client_cert", backend.client_cert)
            try:
                said = read_pair(backend.client_cert, backend.client_key).expiry
            except BadTlsFile:
                continue  # a problem, no warning
            if said:
                yield _line(tree, (*path, "client_cert"), said.replace("clients refuse", "engines refuse"))
            if open_to_all(key[1]):
                yield _line(tree, (*path, key[0]), _READABLE)


def tls_warnings(config: Config, tree: Tree) -> Iterator[str]:
    """Yield what an operator should know about files of server.tls that can be used."""
    tls = config.server.tls
    if tls.cert is None:
        return
    try:
        said = read_pair(tls.cert, tls.key).expiry
    except BadTlsFile:
        return  # a problem, no warning
    if said:
        yield _line(tree, (*SERVER, "cert"), said)
    key = ("key", tls.key) if tls.key is not None else ("cert", tls.cert)
    if open_to_all(key[1]):
        yield _line(tree, (*SERVER, key[0]), _READABLE)
    if tls.client_auth == "optional" and tls.grpc_client_auth is None:
        message = "optional is of HTTPS alone: gRPC clients are not asked for a certificate; see server.tls.grpc_client_auth"
        yield _line(tree, (*SERVER, "client_auth"), message)


def certificate_warnings(config: Config, tree: Tree) -> Iterator[str]:
    """Yield a line where certificates are mapped and none is ever asked for."""
    if not config.auth.certificates:
        return
    path: Path = ("auth", "certificates")
    if not config.auth.enabled:
        yield _line(tree, path, "has no effect while auth.mode is off")
    elif config.server.tls.client_auth == "none" and not config.server.tls.grpc_requires:
        yield _line(tree, path, "has no effect: set server.tls.client_ca and server.tls.client_auth")


def _fail(tree: Tree, path: Path, error: BadTlsFile) -> None:
    tree.fail(tree.where(path), str(error), path)


def _line(tree: Tree, path: Path, message: str) -> str:
    return str(Problem(tree.where(path), path, message))
