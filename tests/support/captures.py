"""The captured exchanges with real engines under tests/data/captures."""

from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[1] / "data" / "captures"


@dataclass(frozen=True)
class Exchange:
    """One request with its raw response; `headers` are lower-case pairs, `response` is as it came over the wire."""

    name: str
    path: str
    headers: tuple[tuple[str, str], ...]
    body: bytes
    response: bytes

    @property
    def request_headers(self) -> dict[str, str]:
        """Headers to send beside the content-length."""
        return {name: value for name, value in self.headers if name != "content-length"}

    @property
    def status(self) -> int:
        return int(self.response.split(b" ", 2)[1])

    @property
    def response_headers(self) -> list[tuple[str, str]]:
        return _headers(self.response.partition(b"\r\n\r\n")[0])

    @property
    def response_body(self) -> bytes:
        """The body without chunk framing, as far as it came."""
        body = self.response.partition(b"\r\n\r\n")[2]
        return dechunk(body) if ("transfer-encoding", "chunked") in self.response_headers else body


def dechunk(data: bytes) -> bytes:
    """The body inside the chunks, the last of which may be missing."""
    pieces = []
    while data:
        size, _, data = data.partition(b"\r\n")
        length = int(size, 16)
        pieces.append(data[:length])
        data = data[length + 2 :]
    return b"".join(pieces)


def exchange(name: str) -> Exchange:
    """The exchange `folder/case`."""
    raw = (FOLDER / f"{name}.http").read_bytes()
    head, _, rest = raw.partition(b"\r\n\r\n")
    headers = _headers(head)
    length = int(dict(headers)["content-length"])
    return Exchange(name, head.split(b" ", 2)[1].decode(), tuple(headers), rest[:length], rest[length:])


def exchanges(*folders: str) -> list[Exchange]:
    """Every exchange of these folders."""
    return [exchange(f"{folder}/{file.stem}") for folder in folders for file in sorted((FOLDER / folder).glob("*.http"))]


def _headers(head: bytes) -> list[tuple[str, str]]:
    lines = head.decode("latin-1").split("\r\n")[1:]
    return [(name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines)]
