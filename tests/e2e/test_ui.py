"""The operator's page in a real browser, over real processes."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

from tests.e2e.conftest import MODEL
from tests.support.browser import chromium, needs_chromium, page
from tests.support.servers import Gateway, Simulator, base_config
from tests.support.wire import wait_until

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = needs_chromium

LONG = "meta-llama/Llama-3.3-70B-Instruct-quantized.w8a8-" + "with-a-very-long-name" * 3
SCRIPT = "<img src=x onerror=alert(1)>"
PROMPT = "Tell me about foxes."
TOUCH = {"is_mobile": True, "has_touch": True}
# What stands out of the window, but the heads of tables, which cards do without.
OUTSIDE = """() => [...document.querySelectorAll("header *, section:not([hidden]) *")].filter((each) => {
  const box = each.getBoundingClientRect();
  const cut = each.scrollWidth > each.clientWidth + 1 && getComputedStyle(each).overflowX !== "visible";
  return box.width && !each.closest("thead") && (box.left < 0 || box.right > innerWidth || cut);
}).map((each) => each.outerHTML.slice(0, 120))"""
WAIT = 15_000  # milliseconds


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    with chromium() as opened:
        yield opened


@pytest.fixture(scope="module")
def spare() -> Iterator[Simulator]:
    with Simulator(model="spare-model") as simulator:
        yield simulator


@pytest.fixture(scope="module")
def gateway(sim: Simulator, spare: Simulator, folder: Path) -> Iterator[Gateway]:
    main = {"url": sim.url, "models": [{"name": MODEL, "capabilities": ["code"]}, SCRIPT, LONG]}
    targets = folder / "engines.json"
    targets.write_text(json.dumps([{"targets": [spare.url.removeprefix("http://")]}]))
    found = {"discover": {"file": str(targets)}, "models": ["spare-model"]}
    with Gateway(base_config(main=main, spare=found), folder) as process:
        yield process


def said(opened: "Page", selector: str, text: str) -> None:
    """Wait until an element says so."""
    opened.locator(selector, has_text=text).first.wait_for(timeout=WAIT)


def ask(opened: "Page", prompt: str = PROMPT, tokens: int = 24) -> None:
    opened.select_option("#model", MODEL)
    opened.fill("#max-tokens", str(tokens))
    opened.fill("#prompt", prompt)
    opened.press("#prompt", "Enter")


def test_the_fleet_at_a_glance(gateway: Gateway, http: httpx.Client, browser: "Browser", sim: Simulator) -> None:
    for _ in range(3):
        http.post("/v1/completions", json={"model": MODEL, "prompt": "x", "max_tokens": 4}).raise_for_status()
    with page(browser, f"{gateway.http}/ui") as opened:
        said(opened, "#state", "healthy")
        said(opened, ".backend:has(h3:text-is('main')) .counts", "3 calls")
        said(opened, ".backend:has(h3:text-is('main')) td", sim.url)
        said(opened, ".backend:has(h3:text-is('spare')) .counts", "engines.json · 1 endpoints · last found")
        said(opened, "#about", "calls")
        assert opened.locator(".chart canvas").count() == 4
        # Ten seconds are drawn when they are over.
        said(opened, ".chart:has-text('Requests per second') .legend", "all 0.")


def test_names_stay_text_and_every_view_is_reached_by_keyboard(
    gateway: Gateway, http: httpx.Client, browser: "Browser"
) -> None:
    with page(browser, f"{gateway.http}/ui/") as opened:
        said(opened, "#state", "healthy")
        opened.keyboard.press("Tab")
        assert opened.evaluate("document.activeElement.className") == "skip"
        for name in ("overview", "calls", "models"):
            opened.keyboard.press("Tab")
            assert opened.evaluate("document.activeElement.hash") == f"#{name}"
        opened.keyboard.press("Enter")
        said(opened, "#models td strong", SCRIPT)
        said(opened, "#models tr:has-text('qwen3-32b') td", "code")
        assert opened.locator("#models img").count() == 0
        opened.focus(f"button[aria-label='Try {MODEL}']")
        opened.keyboard.press("Enter")
        opened.locator("#prompt:focus").wait_for(timeout=WAIT)
        assert opened.input_value("#model") == MODEL


def test_a_streamed_chat_and_what_it_cost(gateway: Gateway, http: httpx.Client, browser: "Browser") -> None:
    body = {"model": MODEL, "messages": [{"role": "user", "content": PROMPT}], "max_tokens": 24, "temperature": 0.7}
    whole = http.post("/v1/chat/completions", json=body).json()
    with page(browser, f"{gateway.http}/ui/#playground") as opened:
        opened.locator(f"#model option[value='{MODEL}']").wait_for(state="attached", timeout=WAIT)
        ask(opened)
        usage = whole["usage"]
        said(opened, "#cost dd", f"{usage['prompt_tokens']} in, {usage['completion_tokens']} out")
        said(opened, "#cost dd", "main")
        said(opened, "#cost dd", "tok/s")
        answer = opened.locator(".said.assistant > span").last.text_content()
        assert answer == whole["choices"][0]["message"]["content"]
        opened.click("nav a[href='#calls']")
        said(opened, "#calls tr:has-text('stream') td", "main")
        assert PROMPT not in (opened.text_content("body") or "").replace(opened.text_content("#conversation") or "", "")


def test_stop_reaches_the_engine(gateway: Gateway, http: httpx.Client, browser: "Browser", sim: Simulator) -> None:
    sim.fault("drip=50", times=1)
    with page(browser, f"{gateway.http}/ui/#playground") as opened:
        opened.locator(f"#model option[value='{MODEL}']").wait_for(state="attached", timeout=WAIT)
        ask(opened, tokens=2000)
        opened.locator(".said.assistant > span:not(:empty)").first.wait_for(timeout=WAIT)
        opened.click("#stop")
        said(opened, ".said.assistant", "[stopped]")
    wait_until(lambda: sim.stats()["aborts"] == 1, "the engine saw the end")


def test_an_error_is_told_in_words(gateway: Gateway, http: httpx.Client, browser: "Browser", sim: Simulator) -> None:
    sim.fault("status;code=400", times=1)
    with page(browser, f"{gateway.http}/ui/#playground", but="status of 400") as opened:
        opened.locator(f"#model option[value='{MODEL}']").wait_for(state="attached", timeout=WAIT)
        ask(opened)
        said(opened, ".said.failed", "[400: ")


@pytest.mark.parametrize("width", [320, 360, 390, 768])
def test_a_phone_shows_cards_and_cuts_nothing(gateway: Gateway, http: httpx.Client, browser: "Browser", width: int) -> None:
    http.post("/v1/completions", json={"model": LONG, "prompt": "x"})
    viewport = {"width": width, "height": 740}
    with page(browser, f"{gateway.http}/ui/", viewport=viewport, **TOUCH) as opened:
        said(opened, "#state", "healthy")
        for view, title in (("overview", "Endpoint"), ("calls", "Model"), ("models", "Model"), ("playground", "")):
            opened.click(f"nav a[href='#{view}']")
            if title:
                card = opened.locator(f"#{view} tbody tr").first
                card.wait_for(timeout=WAIT)
                assert card.evaluate("(row) => getComputedStyle(row).display") == "grid"
                cell = opened.locator(f"#{view} td[data-title='{title}']").first
                assert title in cell.evaluate("(cell) => getComputedStyle(cell, '::before').content")
            assert opened.evaluate(OUTSIDE) == [], view
            assert opened.evaluate("document.documentElement.scrollWidth") <= width, view
        opened.click("nav a[href='#models']")
        opened.tap(f"button[aria-label='Try {LONG}']")
        assert opened.input_value("#model") == LONG


def test_a_long_name_hides_no_button_on_a_desk(gateway: Gateway, http: httpx.Client, browser: "Browser") -> None:
    with page(browser, f"{gateway.http}/ui/#models", viewport={"width": 1280, "height": 800}) as opened:
        opened.locator(f"button[aria-label='Try {LONG}']").wait_for(timeout=WAIT)
        assert opened.evaluate(OUTSIDE) == []


def test_enter_sends_and_shift_enter_breaks_the_line(gateway: Gateway, http: httpx.Client, browser: "Browser") -> None:
    with page(browser, f"{gateway.http}/ui/#playground") as opened:
        opened.locator(f"#model option[value='{MODEL}']").wait_for(state="attached", timeout=WAIT)
        opened.select_option("#model", MODEL)
        opened.fill("#prompt", "one")
        opened.press("#prompt", "Shift+Enter")
        opened.type("#prompt", "two")
        # An input method takes its suggestion by Enter: some browsers say so, Safari by the key code alone.
        for composing in ("isComposing: true", "keyCode: 229"):
            script = f"(box) => box.dispatchEvent(new KeyboardEvent('keydown', {{key: 'Enter', bubbles: true, {composing}}}))"
            opened.eval_on_selector("#prompt", script)
        assert opened.input_value("#prompt") == "one\ntwo"
        assert opened.locator(".said").count() == 0
        opened.press("#prompt", "Enter")
        said(opened, ".said.user", "two")
        assert opened.locator(".said.user > span").last.text_content() == "one\ntwo"


def test_both_themes(gateway: Gateway, http: httpx.Client, browser: "Browser") -> None:
    papers = set()
    for scheme in ("light", "dark"):
        with page(browser, f"{gateway.http}/ui/", color_scheme=scheme) as opened:
            said(opened, "#state", "healthy")
            papers.add(opened.evaluate("getComputedStyle(document.body).backgroundColor"))
            opened.click("#theme")
            assert opened.text_content("#theme") == "Theme: light"
    assert len(papers) == 2


def test_an_engine_that_dies_is_seen(gateway: Gateway, browser: "Browser", spare: Simulator) -> None:
    with page(browser, f"{gateway.http}/ui/") as opened:
        said(opened, ".backend:has(h3:text-is('spare')) .pill", "healthy")
        spare.kill()
        said(opened, ".backend:has(h3:text-is('spare')) td .pill", "unhealthy")
        said(opened, "#state", "degraded")
