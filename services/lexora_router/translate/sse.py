"""Whole server-sent events to the JSON they carry."""

_DONE = b"[DONE]"


def payloads(frames: bytes) -> list[bytes]:
    """The data of each event in order: several per call, LF or CRLF, comments, other fields and `[DONE]` left out."""
    found: list[bytes] = []
    data: list[bytes] = []
    for line in frames.splitlines():
        if line.startswith(b"data:"):
            data.append(line[5:])
        elif not line and data:
            _add(found, data)
            data = []
    if data:
        _add(found, data)
    return found


def _add(found: list[bytes], data: list[bytes]) -> None:
    payload = data[0] if len(data) == 1 else b"\n".join(data)
    payload = payload.strip()
    if payload and payload != _DONE:
        found.append(payload)
