"""Pages, comments, docstrings and help texts are in plain English, as far as a list of words can find that they are not."""

import re

import pytest
from tests.unit.docs.pages import PATHS, ROOT

# pattern -> what to write instead. Words in code (`like this`) and transcripts count, too: they are read all the same.
PUZZLES = {
    r"\bnobody\b": "name what does not: `no backend lists it`",
    r"\btold\b": "reported, shown, or the thing itself",
    r"\b(?:hears?|tells?) of\b": "name the event",
    r"\btells (?!me\b)": "shows, reports, decides",
    r"\b(?:router|gateway|fa[cç]ade|engine|pool|layer|contract|code|room) (?:\w+ )?knows?\b": "has, lists, reads",
    r"\bwhat (?:came|becomes?) of it\b": "the result",
    # `who` needs a person right before it.
    r"(?<!people )(?<!those )(?<!clients )(?<!teams )(?<!users )(?<!when )\bwho\b": "name it: the user, the endpoint",
    r"\bthat is none\b": "an invalid one",
    r"\bsomebody\b": "name it",
    r"\bas (?:far|well) as may be\b": "say the bound",
}
SOURCES = sorted(
    path
    for folder in ("services", "gateway", "proto", "config", "deploy", "tools")
    for path in (ROOT / folder).rglob("*")
    if path.suffix in (".py", ".yaml", ".proto", ".js", ".html") and not {"build", "swagger"} & set(path.parts)
)
TEXTS = {
    path.relative_to(ROOT): path.read_text(encoding="utf-8")
    for path in (*PATHS, *SOURCES)
    if path.name not in ("CHANGELOG.md", "README.ja.md")
}


@pytest.mark.parametrize("pattern", PUZZLES)
def test_no_file_has_a_puzzle(pattern: str) -> None:
    search = re.compile(pattern, re.I)
    found = [
        f"{path}:{text.count(chr(10), 0, hit.start()) + 1}: {hit[0]!r}"
        for path, text in TEXTS.items()
        for hit in search.finditer(text)
    ]
    assert found == [], f"{PUZZLES[pattern]}: {found}"


def test_it_would_be_seen() -> None:
    said = (
        "Who waits is told of it by the router knows what came of it, and nobody tells of one that is none to somebody, "
        "as far as may be."
    )
    assert all(re.search(pattern, said, re.I) for pattern in PUZZLES if "tells (?!" not in pattern)
