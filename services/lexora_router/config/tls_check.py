"""Whether the files of server.tls can be used, before a port is opened."""

from collections.abc import Iterator

from lexora_router.config.models import Config
from lexora_router.config.positions import Tree
from lexora_router.config.problems import Path, Problem
from lexora_router.config.tls_files import BadTlsFile, open_to_all, read_authorities, read_pair

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
        yield _line(tree, (*SERVER, key[0]), "the private key may be read by every user of this machine: chmod o-rwx")
    if tls.client_auth == "optional" and tls.grpc_client_auth is None:
        message = "optional is of HTTPS alone: gRPC clients are not asked for a certificate; see server.tls.grpc_client_auth"
        yield _line(tree, (*SERVER, "client_auth"), message)


def _fail(tree: Tree, path: Path, error: BadTlsFile) -> None:
    tree.fail(tree.where(path), str(error), path)


def _line(tree: Tree, path: Path, message: str) -> str:
    return str(Problem(tree.where(path), path, message))
