"""The chunks that make up most of a stream, read by their bytes: one token, its text without escapes, nothing else."""

# What stands before and behind the text in a chunk of chat and of completions.
_SHAPES = (
    (b'"delta":{"content":"', b'"},"logprobs":null,"finish_reason":null,"token_ids":['),
    (b'"text":"', b'","logprobs":null,"finish_reason":null,"stop_reason":null,"prompt_token_ids":null,"token_ids":['),
)
_END = b"]}]}\n\n"
_MAX_DIGITS = 9


class Glance:
    """Recognises the chunks of one stream after one was looked at closely. `before` and `after` surround the text."""

    __slots__ = ("after", "before")

    def __init__(self) -> None:
        self.before = b""
        self.after = b""

    def learn(self, event: bytes) -> None:
        """Chunks like this one will be recognised."""
        for opening, after in _SHAPES:
            at = event.find(opening)
            if at >= 0:
                self.before, self.after = event[: at + len(opening)], after
                return

    def look(self, block: bytes) -> tuple[bytes, bytes] | None:
        """(text, token id) as they stand there; None when the block is anything but one such chunk."""
        before = self.before
        if not before or not block.startswith(before) or not block.endswith(_END):
            return None
        start = len(before)
        at = block.find(b'"', start)
        text = block[start:at]
        if b"\\" in text or not block.startswith(self.after, at):
            return None
        token = block[at + len(self.after) : -len(_END)]
        return (text, token) if len(token) <= _MAX_DIGITS and token.isdigit() else None

    def write(self, text: bytes, token: bytes | None) -> bytes:
        """Such a chunk with this text, and null in place of a missing id."""
        if token is None:
            return self.before + text + self.after[:-1] + b"null" + _END[1:]
        return self.before + text + self.after + token + _END
