"""The two READMEs have the same content, and their Python runs."""

import re
from pathlib import Path

import pytest
from tests.unit.docs.pages import code, page

from lexora_router.config.load import load
from lexora_router.version import __version__

ENGLISH, JAPANESE = page("README.md"), page("README.ja.md")


def test_the_same_headings() -> None:
    assert [level for level, _ in ENGLISH.headings] == [level for level, _ in JAPANESE.headings]


def test_the_same_code() -> None:
    assert ENGLISH.blocks == JAPANESE.blocks
    assert len(ENGLISH.blocks) >= 6


def test_the_same_tables() -> None:
    def shape(tables: list[list[list[str]]]) -> list[list[list[list[str]]]]:
        return [[[code(cell) for cell in row] for row in table[1:]] for table in tables]

    assert shape(ENGLISH.tables) == shape(JAPANESE.tables)


def test_the_same_links() -> None:
    other = {"README.md": "README.ja.md", "README.ja.md": "README.md"}
    assert sorted(ENGLISH.links) == sorted(other.get(link, link) for link in JAPANESE.links)


def test_the_japanese_one_is_japanese() -> None:
    for _, heading in JAPANESE.headings[1:]:
        assert re.search(r"[ぁ-んァ-ヶ一-龠]", heading) or heading in ("OpenAI SDK", "gRPC")


@pytest.mark.parametrize("block", [text for language, text in ENGLISH.blocks if language == "python"])
def test_python_is_python(block: str) -> None:
    compile(block, "README.md", "exec")


@pytest.mark.parametrize(
    ("name", "backends"), [("README.md", ["chat", "embed", "openai"]), ("docs/tour.md", ["main", "small"])]
)
def test_the_example_is_a_configuration(name: str, backends: list[str], tmp_path: Path) -> None:
    (example,) = [text for language, text in page(name).blocks if language == "yaml"]
    file = tmp_path / "lexora_config.yaml"
    file.write_text(example)
    loaded = load(str(file), {"OPENAI_API_KEY": "k"})
    assert list(loaded.config.backends()) == backends
    assert loaded.warnings == ()


def test_it_is_short() -> None:
    assert len(ENGLISH.text.splitlines()) <= 150


def test_the_changelog_has_this_version() -> None:
    changelog = page("CHANGELOG.md")
    assert f"## [{__version__}]" in changelog.text
