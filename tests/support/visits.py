"""Visits of a page in a real browser, which notice what goes wrong there."""

from __future__ import annotations

import re
import time
from typing import Any

from playwright.sync_api import Browser, BrowserContext, Page

PATIENCE_MS = 120_000.0
"""Only ends a test that hangs: every wait ends with its condition, on a slow machine later."""


class Visit:
    """Opens pages, each in a context of its own: ``visit(served.url + "/data")`` is Playwright's Page.

    The test fails at its end if one has reported an error to the console, thrown an exception, or violated the content
    policy, unless a regular expression in ``expected`` matches it.
    """

    def __init__(self, browser: Browser):
        self._browser = browser
        self._contexts: list[BrowserContext] = []
        self._expected: list[str] = []
        self._problems: list[str] = []

    def __call__(
        self,
        url: str,
        *,
        expected: tuple[str, ...] = (),
        width: int = 1280,
        height: int = 900,
        scheme: str = "light",
        **options: Any,
    ) -> Page:
        """``options`` are those of Playwright's new_context."""
        context = self._browser.new_context(
            viewport={"width": width, "height": height},
            color_scheme=scheme,  # type: ignore[arg-type]
            **options,
        )
        context.set_default_timeout(PATIENCE_MS)
        self._contexts.append(context)
        self.expect(*expected)
        page = context.new_page()
        self.watch(page)
        page.goto(url)
        return page

    def expect(self, *patterns: str) -> None:
        """Errors that match one of these are no failure of the test."""
        self._expected += patterns

    def watch(self, page: Page) -> None:
        """Collect the problems of a page that the test itself has opened."""
        page.on("console", lambda message: self._add(message.type, f"{message.text} ({message.location.get('url')})"))
        page.on("pageerror", lambda error: self._add("error", str(error)))

    @property
    def problems(self) -> list[str]:
        """What no test expected."""
        return [each for each in self._problems if not any(re.search(one, each) for one in self._expected)]

    def close(self) -> None:
        for context in self._contexts:
            context.close()
        self._contexts.clear()

    def _add(self, kind: str, text: str) -> None:
        if kind == "error" or "Content Security Policy" in text:
            self._problems.append(text)


def until(page: Page, expression: str) -> None:
    """Wait until the expression is true. Playwright's own wait_for_function is what our content policy forbids."""
    deadline = time.monotonic() + PATIENCE_MS / 1_000
    while not page.evaluate(expression):
        assert time.monotonic() < deadline, f"{page.url}: {expression} did not come true"
        page.wait_for_timeout(50)
