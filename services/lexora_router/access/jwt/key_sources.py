"""Where an issuer's keys are: at an address, at the one that its discovery document names, or in a file."""

import asyncio
import ipaddress
import os
import socket
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import httpx
import msgspec

from lexora_router.access.jwt.key_cache import CannotRead
from lexora_router.access.jwt.key_set import MAX_DOCUMENT_BYTES, KeySet, parse_keys
from lexora_router.config.jwt import JwtProvider
from lexora_router.config.regular_file import open_regular

DISCOVERY = "/.well-known/openid-configuration"  # OpenID Connect Discovery 1.0, section 4
FILE_SECONDS = 2.0  # between two looks at a file
_MAX_ADDRESSES = 4  # of one host, that are tried in turn
_NAT64 = ipaddress.ip_network("64:ff9b::/96")  # RFC 6052: an IPv4 address in its last four bytes

Reader = Callable[[], Awaitable[KeySet | None]]


def reader_of(provider: JwtProvider) -> Reader:
    """What reads the keys of a provider. It raises CannotRead and UnusableKeys."""
    if provider.jwks_file is not None:
        return FileKeys(Path(provider.jwks_file)).read
    return RemoteKeys(provider).read


class FileKeys:
    """A JWK Set in a file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, int, int] | None = None

    async def read(self) -> KeySet | None:
        """The keys; None where the file is the one that was read before."""
        return await asyncio.to_thread(self._read)

    def _read(self) -> KeySet | None:
        try:
            with open_regular(self._path) as file:
                status = os.fstat(file.fileno())
                stamp = (status.st_ino, status.st_size, status.st_mtime_ns)
                if stamp == self._seen:
                    return None
                keys = parse_keys(file.read(MAX_DOCUMENT_BYTES + 1))
        except OSError as error:
            raise CannotRead(f"{self._path} cannot be read: {error.strerror}") from None
        self._seen = stamp
        return keys


class RemoteKeys:
    """A JWK Set at an address, or at the address that the issuer's discovery document names."""

    def __init__(self, provider: JwtProvider) -> None:
        self._provider = provider

    async def read(self) -> KeySet:
        """The keys, in `timeout` seconds for everything."""
        try:
            async with asyncio.timeout(self._provider.timeout):
                url = self._provider.jwks_url or await self._discovered()
                return parse_keys(await self._get(url))
        except TimeoutError:
            raise CannotRead(f"no answer within {self._provider.timeout:g} s") from None

    async def _discovered(self) -> str:
        issuer = self._provider.issuer
        document = await self._get(issuer.rstrip("/") + DISCOVERY)
        try:
            found: Any = msgspec.json.decode(document)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict) or not isinstance(found.get("jwks_uri"), str):
            raise CannotRead("the discovery document has no jwks_uri")
        if found.get("issuer") != issuer:
            raise CannotRead("the discovery document is another issuer's")
        return str(found["jwks_uri"])

    async def _get(self, url: str) -> bytes:
        """A document, from an address that has been checked: the name is resolved once, here, and no redirect is followed."""
        try:
            parts = urlsplit(url)
            host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
        except ValueError:
            raise CannotRead("the address of the keys is malformed") from None
        if not url.isascii() or not url.isprintable() or " " in url or "@" in parts.netloc:  # of a discovery document
            raise CannotRead("the address of the keys is malformed")
        if parts.scheme != "https" and not (parts.scheme == "http" and self._provider.allow_http):
            raise CannotRead("the address of the keys does not begin with https://")
        tls = await asyncio.to_thread(self._context) if parts.scheme == "https" else None
        fault = "no address"
        for address in (await self._addresses(host, port))[:_MAX_ADDRESSES]:
            netloc = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
            pinned = urlunsplit((parts.scheme, netloc, parts.path, parts.query, ""))
            try:
                return await self._get_from(pinned, parts.netloc, host, tls)
            except httpx.TransportError as error:
                fault = str(error) or type(error).__name__
            except httpx.InvalidURL:
                raise CannotRead("the address of the keys is malformed") from None
        raise CannotRead(f"cannot connect to {host}:{port}: {fault}")

    async def _get_from(self, url: str, authority: str, host: str, tls: ssl.SSLContext | None) -> bytes:
        headers = {"host": authority, "accept": "application/json", "accept-encoding": "identity"}
        # No proxy from the environment: it would resolve the name again. `sni_hostname` is also what the certificate must name.
        async with (
            httpx.AsyncClient(verify=tls or False, trust_env=False, timeout=self._provider.timeout) as client,
            client.stream("GET", url, headers=headers, extensions={"sni_hostname": host}) as response,
        ):
            if response.status_code != httpx.codes.OK:
                redirect = " (redirects are not followed)" if response.has_redirect_location else ""
                raise CannotRead(f"{host} answered {response.status_code}{redirect}")
            if "content-encoding" in response.headers:
                raise CannotRead(f"{host} answered with a content coding, which was not asked for")
            document = bytearray()
            async for piece in response.aiter_raw():
                document += piece
                if len(document) > MAX_DOCUMENT_BYTES:
                    raise CannotRead(f"{host} answered with more than {MAX_DOCUMENT_BYTES // 1024} KiB")
            return bytes(document)

    async def _addresses(self, host: str, port: int) -> list[str]:
        try:
            found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            raise CannotRead(f"{host} has no address") from None
        addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
        if self._provider.allow_private:
            return addresses
        public = [address for address in addresses if is_public(address)]
        if not public:
            raise CannotRead(f"{host} is at a private address; allow_private permits that")
        return public

    def _context(self) -> ssl.SSLContext:
        try:
            return ssl.create_default_context(cafile=self._provider.ca_file)
        except OSError as error:
            raise CannotRead(f"ca_file cannot be used: {error.strerror or error}") from None


def is_public(address: str) -> bool:
    """Whether an address is one of the public internet, and hides no other one inside."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour or (ipaddress.IPv4Address(ip.packed[-4:]) if ip in _NAT64 else None)
        if inner is not None:
            return inner.is_global and not inner.is_multicast
    return ip.is_global and not ip.is_multicast
