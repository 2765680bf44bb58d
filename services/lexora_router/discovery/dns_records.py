"""Addresses in DNS: A and AAAA records of a name, or SRV records (RFC 2782), which have ports.

dnspython asks: it gives TTLs, asks the next name server when one is silent or broken, and TCP when an answer is cut off.
"""

import asyncio

import dns.asyncresolver
import dns.exception
import dns.message
import dns.name
import dns.nameserver
import dns.rdatatype
import dns.resolver

from lexora_router.config.discover import DiscoverConfig
from lexora_router.discovery.loop_thread import LoopThread
from lexora_router.discovery.source import Found, LookFailed, address, found

# A name that has no records any more is emptied after so many answers that say so, one after the other.
CONFIRMATIONS = 3
# Targets of SRV records whose addresses are asked for at the same time.
ASKED_AT_ONCE = 16
_FAMILIES = {"ipv4": ("A",), "ipv6": ("AAAA",), "both": ("A", "AAAA"), "auto": ("A", "AAAA")}

_Additional = dict[tuple[str, str], list[str]]


class DnsRecords:
    """The records of one name. Answers count for as long as their TTL says, within the bounds of the configuration."""

    def __init__(self, settings: DiscoverConfig) -> None:
        self._settings = settings
        self._name = settings.service_name or settings.dns or ""
        kind = "SRV" if settings.service_name is not None else f"port {settings.port}"
        self.what = f"dns {self._name} ({kind})"
        self._empty = 0  # answers without a record, one after the other
        self._thread = LoopThread("lexora-dns")  # to read an answer of 1,000 records takes 30 to 80 ms

    async def look(self) -> Found:
        """The addresses by now, in `timeout` seconds for everything. Raises LookFailed."""
        return await self._thread.run(self._look())

    async def close(self) -> None:
        """End the thread."""
        self._thread.close()

    async def _look(self) -> Found:
        try:
            lookup = _Lookup(self._settings)
        except dns.resolver.NoResolverConfiguration:
            raise LookFailed("/etc/resolv.conf names no name server; name some in discover.servers") from None
        by_service = self._settings.service_name is not None
        try:
            async with asyncio.timeout(self._settings.timeout):
                addresses = await (lookup.services(self._name) if by_service else lookup.hosts(self._name))
        except (TimeoutError, dns.resolver.LifetimeTimeout):
            raise LookFailed(f"no answer within {self._settings.timeout:g} s from {lookup.servers}") from None
        except dns.exception.DNSException as error:
            raise LookFailed(_in_words(error)) from None
        except OSError as error:
            raise LookFailed(error.strerror or type(error).__name__) from None
        if addresses:
            self._empty = 0
            return found(addresses, min(max(lookup.ttl, self._settings.min_interval), self._settings.max_interval))
        self._empty += 1
        if self._empty < CONFIRMATIONS:
            raise LookFailed(
                f"the name has no records (answer {self._empty} of {CONFIRMATIONS} that must say so)",
                self._settings.min_interval,
            )
        return found((), self._settings.min_interval)


class _Lookup:
    """The questions of one look. `ttl` is the lowest of all answers, in seconds."""

    def __init__(self, settings: DiscoverConfig) -> None:
        self.ttl = settings.max_interval
        self._settings = settings
        # Made anew for each look: /etc/resolv.conf may be another one by now.
        self._resolver = dns.asyncresolver.Resolver(configure=not settings.servers)
        if settings.servers:
            self._resolver.nameservers = [_server(text) for text in settings.servers]
        # A silent server must leave time for the next one.
        self._resolver.timeout = min(2.0, settings.timeout / 3)
        self._resolver.lifetime = settings.timeout

    @property
    def servers(self) -> str:
        """The name servers that are asked."""
        return ", ".join(_shown(server) for server in self._resolver.nameservers)

    async def hosts(self, name: str) -> list[str]:
        """The addresses of the name, with the configured port."""
        port = self._settings.port or 0
        return [address(host, port) for host in await self._hosts(name, {})]

    async def services(self, name: str) -> list[str]:
        """Addresses and ports of the targets of the best priority."""
        answer = await self._ask(name, "SRV")
        records = list(answer or ())
        best = min((record.priority for record in records), default=0)
        targets = {(record.target, record.port) for record in records if record.priority == best}
        known = _additional(answer)
        some = asyncio.Semaphore(ASKED_AT_ONCE)

        async def of(target: dns.name.Name, port: int) -> list[str]:
            async with some:
                try:
                    return [address(host, port) for host in await self._hosts(target.to_text(), known)]
                except dns.resolver.NXDOMAIN:
                    return []  # it has gone between the two answers

        # A target of "." says that the service is not there.
        asked = [of(target, port) for target, port in targets if target != dns.name.root]
        return [each for group in await asyncio.gather(*asked) for each in group]

    async def _hosts(self, name: str, known: _Additional) -> list[str]:
        hosts: list[str] = []
        for kind in _FAMILIES[self._settings.ip]:
            if hosts and self._settings.ip == "auto":  # an engine with two addresses is one engine
                break
            hosts += known.get((name, kind)) or [record.address for record in await self._ask(name, kind) or ()]
        return hosts

    async def _ask(self, name: str, kind: str) -> dns.resolver.Answer | None:
        """None when the name has no such record. Raises DNSException, NXDOMAIN among them."""
        answer = await self._resolver.resolve(name, kind, search=True, raise_on_no_answer=False)
        if answer.rrset is None:
            return None
        self.ttl = min(self.ttl, answer.chaining_result.minimum_ttl)
        return answer


def _additional(answer: dns.resolver.Answer | None) -> _Additional:
    """Addresses of targets that came with the SRV records."""
    found: _Additional = {}
    for rrset in answer.response.additional if answer is not None else ():
        kind = dns.rdatatype.to_text(rrset.rdtype)
        if kind in ("A", "AAAA"):
            found[rrset.name.to_text(), kind] = [record.address for record in rrset]
    return found


def _server(text: str) -> dns.nameserver.Nameserver:
    """A name server of the configuration, with a port or without one."""
    host, _, port = text.rpartition(":")
    if host.endswith("]") or (host and ":" not in host):
        return dns.nameserver.Do53Nameserver(host.strip("[]"), int(port))
    return dns.nameserver.Do53Nameserver(text.strip("[]"), 53)


def _in_words(error: dns.exception.DNSException) -> str:
    match error:
        case dns.resolver.NXDOMAIN():
            return "there is no such name (NXDOMAIN)"
        case dns.resolver.NoNameservers():
            # Of each try: server, whether by TCP, port, what it said or raised, answer.
            said = {_shown(server): str(problem) for server, _, _, problem, _ in error.kwargs.get("errors", ())}
            return f"no name server could answer: {', '.join(f'{server} {problem}' for server, problem in said.items())}"
    return str(error) or type(error).__name__


def _shown(server: object) -> str:
    """`address@port`, or the address alone."""
    return str(server).removeprefix("Do53:")
