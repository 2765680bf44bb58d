"""Debian's Chromium, driven by playwright."""

import contextlib
import shutil
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

CHROMIUM = shutil.which("chromium")
# Without these flags it looks for its makers' servers at every start.
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="needs Debian's chromium: apt-get install chromium")


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    """A browser of our own."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        try:
            yield browser
        finally:
            browser.close()


@contextlib.contextmanager
def page(browser: Browser, url: str, *, but: str | Sequence[str] = (), **options: Any) -> Iterator[Page]:
    """A page at `url` in a profile of its own; whatever it complains about, but for what has `but` in it, fails the test."""
    context = browser.new_context(**options)
    opened = context.new_page()
    complaints: list[str] = []
    opened.on("console", lambda message: complaints.append(message.text) if message.type in ("error", "warning") else None)
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    try:
        opened.goto(url)
        yield opened
    finally:
        context.close()
    expected = (but,) if isinstance(but, str) else but
    left = [text for text in complaints if not any(each in text for each in expected)]
    assert not left, left
