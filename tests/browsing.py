"""Chromium for tests: fixtures, which tests/conftest.py makes known to all, and what is asked of every page.

Without Playwright or Chromium these tests are skipped, unless WSTHREADS_REQUIRE_BROWSER is set. With
WSTHREADS_SCREENSHOTS=directory, `picture` leaves screenshots there to look at.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.programs import PROGRAM_S

try:
    from playwright.sync_api import expect, sync_playwright
except ImportError:
    expect = sync_playwright = None  # type: ignore[assignment]
else:
    expect.set_options(timeout=PROGRAM_S * 1000)

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

PHONE = {"viewport": {"width": 360, "height": 640}, "has_touch": True, "is_mobile": True, "device_scale_factor": 2}

#: A lost connection and a refused one are the browser's own lines, and meant to happen here.
_MEANT = re.compile(
    "WebSocket connection to|ERR_CONNECTION|ERR_SOCKET_NOT_CONNECTED|ERR_EMPTY_RESPONSE|"
    "Failed to load resource.*(400|403|404)"
)


def chromium(*, with_windows: bool = False) -> str | None:
    """The program, if there is one on this machine: the one without windows, which takes half of the time.

    A page in it is never behind another one, and it keeps none for "back".
    """
    programs = ["chromium", "chromium-browser", "google-chrome"]
    if not with_windows:
        programs.insert(0, "chromium-headless-shell")
    return next(filter(None, map(shutil.which, programs)), None)


def needed_chromium(*, with_windows: bool = False) -> str:
    """The same. Skips the test if it or Playwright is missing, or fails if WSTHREADS_REQUIRE_BROWSER is set."""
    program = chromium(with_windows=with_windows)
    if sync_playwright is not None and program is not None:
        return program
    missing = "playwright is not installed" if sync_playwright is None else "no Chromium on this machine"
    if os.environ.get("WSTHREADS_REQUIRE_BROWSER"):
        pytest.fail(missing)
    pytest.skip(missing)


@contextmanager
def started_browser() -> Iterator[Browser]:
    """Chromium, without a window, to the end of the block."""
    with sync_playwright() as driver:
        arguments = ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--disable-lcd-text"]
        browser = driver.chromium.launch(executable_path=chromium(), args=arguments)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    needed_chromium()
    with started_browser() as browser:
        yield browser


@pytest.fixture
def window(browser: Browser) -> Iterator[Callable[..., Page]]:
    """Open a window, which shares nothing with the others. It may have no error on its console."""
    contexts, errors = [], []

    def open_window(url: str | None = None, **options: Any) -> Page:
        context = browser.new_context(**options)
        context.set_default_timeout(PROGRAM_S * 1000)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        if url is not None:
            page.goto(url)
        return page

    yield open_window
    for context in contexts:
        context.close()
    assert [error for error in errors if not _MEANT.search(error)] == []


@pytest.fixture
def picture() -> Callable[[Page, str], None]:
    folder = os.environ.get("WSTHREADS_SCREENSHOTS")

    def take(page: Page, name: str) -> None:
        if folder:
            Path(folder).mkdir(parents=True, exist_ok=True)
            page.screenshot(path=Path(folder) / f"{name}.png")

    return take


def field(page: Page | Locator, name: str) -> Locator:
    return page.get_by_role("textbox", name=name, exact=True)


def button(page: Page | Locator, name: str) -> Locator:
    return page.get_by_role("button", name=name, exact=True)


def has_no_sideways_scrolling(page: Page) -> bool:
    return bool(page.evaluate("document.documentElement.scrollWidth <= innerWidth"))


def low_contrasts(page: Page, least: float = 4.5) -> list[str]:
    """The texts that are seen in a contrast to their background of less than `least` (WCAG 2), with that contrast.

    Controls that are disabled may have less.
    """
    found: list[str] = page.evaluate(_CONTRASTS, least)
    return found


_CONTRASTS = """(least) => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgba = (color) => {
    canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = color; canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const over = ([r, g, b, a], below) => [r, g, b].map((value, n) => (value * a + below[n] * (255 - a)) / 255);
  const background = (element) => {
    if (!element) return [255, 255, 255];
    const color = rgba(getComputedStyle(element).backgroundColor);
    return color[3] === 255 ? color.slice(0, 3) : over(color, background(element.parentElement));
  };
  const luminance = (color) => {
    const linear = (part) => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
    const [r, g, b] = color.map((value) => linear(value / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const low = [];
  for (const element of document.querySelectorAll("body *")) {
    const hasText = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    const isSeen = element.checkVisibility({ checkOpacity: true });
    if (!hasText || !isSeen || element.closest(":disabled, option, script")) continue;
    const style = getComputedStyle(element);
    const below = background(element);
    const color = over(rgba(element.closest("svg") ? style.fill : style.color), below);
    const [light, dark] = [luminance(color), luminance(below)].sort((one, other) => other - one);
    const contrast = (light + 0.05) / (dark + 0.05);
    const name = `${element.tagName}.${element.className}: ${element.textContent.slice(0, 40)}`;
    if (contrast < least) low.push(`${contrast.toFixed(2)} ${name}`);
  }
  return low;
}"""
