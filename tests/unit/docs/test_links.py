"""Every link between the pages leads somewhere, and every page can be found."""

import re
from urllib.parse import unquote

import pytest
from tests.unit.docs.pages import PATHS, ROOT, Page, page

PAGES = [Page(path) for path in PATHS]
NAMES = [str(path.relative_to(ROOT)) for path in PATHS]


@pytest.mark.parametrize("each", PAGES, ids=NAMES)
def test_relative_links_resolve(each: Page) -> None:
    broken = []
    for link in each.links:
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = unquote(link).partition("#")
        target = (each.path.parent / name).resolve() if name else each.path
        known = target.exists() and (not anchor or anchor in Page(target).anchors)
        if not known:
            broken.append(link)
    assert broken == []


def test_there_are_links_to_check() -> None:
    assert len(PAGES) >= 10
    assert "operations.md#metrics" in page("docs/api.md").links
    assert "metrics" in page("docs/operations.md").anchors


def test_the_index_names_every_page() -> None:
    linked = set(page("docs/index.md").links)
    assert {path.name for path in PATHS if path.parent.name == "docs"} - {"index.md"} <= linked
    assert {"../README.md", "../README.ja.md", "../CHANGELOG.md"} <= linked


def test_every_fence_is_closed() -> None:
    for each in PAGES:
        assert len(re.findall(r"^```", each.text, re.M)) == 2 * len(each.blocks), each.path.name


def test_no_page_names_a_place_of_one_machine() -> None:
    for each in PAGES:
        assert not re.search(r"(?<![\w.])/(?:work|tmp|root|home)/", each.text), each.path.name
