"""Want of this machine's own: file descriptors, memory for sockets, local ports. It is no endpoint's fault."""

import errno
import time
from collections import Counter
from collections.abc import Callable

import structlog

_log = structlog.get_logger("lexora_router")

# What connect(2), socket(2) and accept(2) report of the machine, not of the other side.
LOCAL = {
    errno.EMFILE: "file descriptors of this process (ulimit -n, LimitNOFILE)",
    errno.ENFILE: "file descriptors of this machine (fs.file-max)",
    errno.ENOBUFS: "memory for sockets",
    errno.ENOMEM: "memory",
    errno.EADDRNOTAVAIL: "local ports (net.ipv4.ip_local_port_range)",
}
LOG_SECONDS = 10.0


class Shortages:
    """Counts shortages by the errno's name, and logs at most one line in ten seconds, with the number since the last one."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._logged_at = float("-inf")
        self._since = 0
        self.in_all: Counter[str] = Counter()

    def note(self, number: int) -> str:
        """Take note of one shortage; what is lacking, for people."""
        name, lacking = errno.errorcode[number], LOCAL[number]
        self.in_all[name] += 1
        self._since += 1
        now = self._clock()
        if now - self._logged_at >= LOG_SECONDS:
            _log.warning("out_of_resources", error=name, lacking=lacking, times=self._since)
            self._logged_at, self._since = now, 0
        return lacking


shortages = Shortages()  # of this process
