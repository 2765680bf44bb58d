"""A name server over UDP and TCP in a thread of its own, which says what a test tells it to."""

import contextlib
import socket
import struct
import threading
from types import TracebackType
from typing import Literal, Self

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset

Mood = Literal["well", "servfail", "silent"]


class DnsServer:
    """`records` are texts by name and type: {("pods.test", "A"): ["127.0.0.1"]}; a name without any is NXDOMAIN.

    `mood` is how it is. With `cut` it gives its answers over TCP only. `asked` has (name, type, transport) of each question.
    """

    def __init__(self, port: int = 0) -> None:
        self.records: dict[tuple[str, str], list[str]] = {}
        self.ttl = 0
        self.mood: Mood = "well"
        self.cut = False
        self.asked: list[tuple[str, str, str]] = []
        self._udp, self._tcp = _sockets(port)
        self.port: int = self._udp.getsockname()[1]
        self.address = f"127.0.0.1:{self.port}"
        self._threads = [threading.Thread(target=run, daemon=True) for run in (self._serve_udp, self._serve_tcp)]

    def say(self, name: str, kind: str, *values: str) -> None:
        """Have these records from now on."""
        self.records[name, kind] = list(values)

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._udp.sendto(b"", ("127.0.0.1", self.port))  # wakes the thread, and ends it
        with contextlib.suppress(OSError):
            self._tcp.shutdown(socket.SHUT_RDWR)
        self._tcp.close()
        for thread in self._threads:
            thread.join(5)
        self._udp.close()

    def _serve_udp(self) -> None:
        while True:
            try:
                data, client = self._udp.recvfrom(4096)
            except OSError:
                return
            if not data:
                return
            answer = self._answer(data, "udp")
            if answer is not None:
                with contextlib.suppress(OSError):
                    self._udp.sendto(answer, client)

    def _serve_tcp(self) -> None:
        while True:
            try:
                connection, _ = self._tcp.accept()
            except OSError:
                return
            with connection, connection.makefile("rwb") as stream, contextlib.suppress(OSError, struct.error):
                (length,) = struct.unpack("!H", stream.read(2))
                answer = self._answer(stream.read(length), "tcp")
                if answer is not None:
                    stream.write(struct.pack("!H", len(answer)) + answer)
                    stream.flush()

    def _answer(self, data: bytes, transport: str) -> bytes | None:
        query = dns.message.from_wire(data)
        [question] = query.question
        name, kind = question.name.to_text(omit_final_dot=True), dns.rdatatype.to_text(question.rdtype)
        self.asked.append((name, kind, transport))
        if self.mood == "silent":
            return None
        response = dns.message.make_response(query)
        response.flags |= dns.flags.RA
        if self.mood == "servfail":
            response.set_rcode(dns.rcode.SERVFAIL)
        elif self.cut and transport == "udp":
            response.flags |= dns.flags.TC
        elif not any(known == name for known, _ in self.records):
            response.set_rcode(dns.rcode.NXDOMAIN)
        elif values := self.records.get((name, kind)):
            response.answer.append(dns.rrset.from_text_list(question.name, self.ttl, "IN", kind, values))
        return response.to_wire()


def _sockets(port: int) -> tuple[socket.socket, socket.socket]:
    """One of each kind on the same port; another one is tried where the second of a free one is taken."""
    while True:
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        udp.bind(("127.0.0.1", port))
        try:
            return udp, socket.create_server(udp.getsockname())
        except OSError:
            udp.close()
            if port:
                raise
