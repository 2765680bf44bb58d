"""How far an answer has come: its token ids, and the last point from which an engine can go on without a seam.

Such a point is a number of tokens whose text has left the engine whole. Engines hold text back: bytes of a character until
it is complete, and, with stop strings, as many characters as the longest of them has, less one. So after a chunk the text
of all its tokens is `hold` characters longer than what has been sent, and its point counts once that much more has come.
No stop string can then begin before the point, for what was sent has been searched. A chunk of several tokens may end with
one that only begins a character, and nothing in it shows that.
"""

from array import array
from collections import deque

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
MAX_IDS = (1 << 20) // array("I").itemsize  # 1 MiB of prompt and answer
MAX_CHARS = 1 << 20
MAX_OPEN_CHARS = 512  # sent text without a sure point in it


class Points:
    """Where an engine can go on. Characters are counted as the engine sent them; the first point is the start."""

    __slots__ = ("_hold", "_points", "_sent", "_tail")

    def __init__(self, hold: int) -> None:
        self._hold = hold
        self._sent = 0
        self._points = deque([(0, 0)])  # tokens, characters of their text
        self._tail = ""  # sent after the first point

    @property
    def tokens(self) -> int:
        """Tokens up to the point that would be taken now."""
        return self._points[0][0]

    def add(self, tokens: int, text: str, *, sure: bool) -> None:
        """`text` (not empty) has come with the token that makes them `tokens`; `sure`: no character is begun there."""
        self._sent += len(text)
        if not self._hold and ((sure and text[-1] != REPLACEMENT) or self._late):
            self._points[0] = (tokens, self._sent)
            self._tail = ""
            return
        self._tail += text
        if self._hold and (sure or self._late):
            self._points.append((tokens, self._sent + self._hold))
        while len(self._points) > 1 and self._points[1][1] <= self._sent:
            self._advance()

    def rewind(self) -> tuple[int, str]:
        """Go on from the last point: its tokens, and the text behind it that has been sent already."""
        (tokens, at), text = self._points[0], self._tail
        self._points = deque([(tokens, at)])
        self._sent, self._tail = at, ""
        return tokens, text

    @property
    def _late(self) -> bool:
        """Whether any point is better than none."""
        return len(self._tail) > MAX_OPEN_CHARS + self._hold

    def _advance(self) -> None:
        start, (_, at) = self._points[0][1], self._points[1]
        if self._tail[at - start - 1] == REPLACEMENT and not self._late:
            del self._points[1]
            return
        self._points.popleft()
        self._tail = self._tail[at - start :]


class Progress:
    """One answer: what has come so far, over all its engines.

    `show_ids`: the client sees the ids, too. `greedy`: made again, tokens would be the same, so that going back a little to
    a sure point costs nothing. `sample`: data of the first chunk that the client saw, the shape of all that follow.
    `thinking`: the last text was reasoning. `finished`: the finish reason was seen. `counted`: the usage chunk was.
    `ended`: the end mark was.
    """

    def __init__(self, *, hold: int, greedy: bool, keep_ids: bool, keep_text: bool, show_ids: bool) -> None:
        self.prompt: array[int] | None = None
        self.ids = array("I")
        self.sample = b""
        self.text_events = 0
        self.thinking = False
        self.finished = False
        self.counted = False
        self.ended = False
        self._hold = hold
        self._show_ids = show_ids
        self._greedy = greedy
        self._points = Points(hold)
        self._room = MAX_IDS
        self._known = keep_ids  # the ids of all text so far
        self._texts: list[str] | None = [] if keep_text else None
        self._chars = 0
        self._owed_text = ""
        self._owed_ids: list[int] = []

    @property
    def mode(self) -> str:
        """From what the answer can be continued: "token_ids", "text", or "" for nothing."""
        if self.prompt is not None and self._known:
            return "token_ids"
        return "" if self._texts is None else "text"

    @property
    def kept(self) -> int:
        """Tokens that another engine need not make again; for a text about as many."""
        return self._points.tokens if self.mode == "token_ids" else self.text_events

    @property
    def text(self) -> str:
        """The text so far, for an answer without ids; a character that is not whole is left to the next engine."""
        return "".join(self._texts or ()).rstrip(REPLACEMENT)

    def begin(self, prompt: list[int]) -> None:
        """Token ids of the prompt; those of another engine for the same call change nothing."""
        if self.prompt is None and self._known:
            self.prompt = array("I", prompt)
            self._texts = None
            self._room = MAX_IDS - len(prompt)
            self._bound()

    def add_one(self, token: int, text: str) -> None:
        """`add` for what is most of a stream: one token of content."""
        if self.prompt is None or not self._known:
            self.add([token], text, thinking=False)
            return
        self.ids.append(token)
        tokens = len(self.ids)
        if tokens > self._room:
            self.give_up()
        elif text:
            self.text_events += 1
            self.thinking = False
            self._points.add(tokens, text, sure=True)

    def add(self, ids: list[int] | None, text: str, *, thinking: bool) -> None:
        """One chunk of the answer, as an engine sent it."""
        if ids is not None and self.prompt is not None:
            self.ids.extend(ids)
            self._bound()
        elif ids or text:
            self._known = False
        if not text or not self.mode:
            return
        self.text_events += 1
        self.thinking = thinking
        if thinking and (self._hold or self._texts is not None):
            self.give_up()  # a text does not show where thoughts end, nor how much of them is held back
            return
        self._points.add(len(self.ids), text, sure=not self._greedy or ids is None or len(ids) == 1)
        if self._texts is not None:
            self._texts.append(text)
            self._chars += len(text)
            if self._chars > MAX_CHARS:
                self.give_up()

    def rewind(self) -> int:
        """Another engine goes on from `kept` tokens; the number of those that are lost, and made anew."""
        if self.mode != "token_ids":
            return 0
        kept, text = self._points.rewind()
        lost = self.ids[kept:]
        self.ids = self.ids[:kept]
        self._owed_text = text + self._owed_text
        self._owed_ids = lost.tolist() + self._owed_ids if self._show_ids else []
        return len(lost)

    @property
    def owing(self) -> bool:
        """Whether the client has something that is being made again."""
        return bool(self._owed_text or self._owed_ids)

    def unseen(self, text: str) -> str:
        """The part of a continuation's text that the client does not have yet."""
        if not self._owed_text:
            return text
        same = _common(self._owed_text, text)
        self._owed_text = self._owed_text[same:] if same == len(text) else ""
        return text[same:]

    def unseen_ids(self, ids: list[int]) -> list[int]:
        """The part of a continuation's ids that the client does not have yet."""
        if not self._owed_ids:
            return ids
        same = _common(self._owed_ids, ids)
        self._owed_ids = self._owed_ids[same:] if same == len(ids) else []
        return ids[same:]

    def give_up(self) -> None:
        """The answer cannot be continued any more; what was kept for that is forgotten."""
        self._known, self._texts = False, None
        self.prompt, self.ids = None, array("I")

    def _bound(self) -> None:
        if len(self.ids) > self._room:
            self.give_up()


def _common(left: str | list[int], right: str | list[int]) -> int:
    """Length of the common beginning."""
    most = min(len(left), len(right))
    return next((at for at in range(most) if left[at] != right[at]), most)
