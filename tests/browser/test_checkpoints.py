"""Checkpoints in a browser: two are picked and compared with the keyboard alone, and ticks outlast a refresh."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, expect

from tests.support.pages import Served
from tests.support.visits import Visit


def tab_to(page: Page, selector: str, most: int = 60) -> None:
    """Move the focus with the Tab key until it is there."""
    for _ in range(most):
        page.keyboard.press("Tab")
        if page.evaluate("(wanted) => document.activeElement.matches(wanted)", selector):
            return
    raise AssertionError(f"{selector} is not reached with {most} tabs")


def test_two_are_picked_and_compared_with_the_keyboard(synthetic: Served, visit: Visit) -> None:
    page = visit(f"{synthetic.url}/checkpoints?sort=number&order=asc")
    page.locator("h1").click()
    for number in (3, 4):
        tab_to(page, f"#pick-{number}")
        page.keyboard.press("Space")
    expect(page.locator("#pick-3")).to_be_checked()
    page.locator("#pick-4").press("Enter")
    page.wait_for_url(re.compile(r"/checkpoints/compare\?a=3&b=4$"))
    expect(page.get_by_role("heading", level=1)).to_have_text("#3 and #4 compared")
    tab_to(page, "select[name=change]")
    page.keyboard.type("lost")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile("change=lost"))
    expect(page.locator(".pairs .badge.lost").first).to_be_visible()


def test_ticks_and_choices_outlast_a_refresh(synthetic: Served, visit: Visit) -> None:
    page = visit(f"{synthetic.url}/checkpoints")
    page.locator("select[name=status]").select_option("refused")
    page.locator("#pick-5").check()
    with page.expect_response(lambda answer: "/checkpoints" in answer.url and answer.ok):
        page.evaluate("() => htmx.trigger(document.body, 'ledger')")
    page.wait_for_timeout(300)
    expect(page.locator("#pick-5")).to_be_checked()
    expect(page.locator("#pick-4")).not_to_be_checked()
    expect(page.locator("select[name=status]")).to_have_value("refused")


def test_a_column_sorts_and_says_so(synthetic: Served, visit: Visit) -> None:
    page = visit(f"{synthetic.url}/checkpoints")
    page.get_by_role("link", name="training loss").click()
    expect(page.locator("th[aria-sort=ascending]")).to_have_text(re.compile("training loss"))


@pytest.mark.parametrize("path", ["/checkpoints", "/checkpoints/8", "/checkpoints/compare?a=3&b=4"])
def test_a_phone_is_wide_enough(synthetic: Served, visit: Visit, path: str) -> None:
    page = visit(synthetic.url + path, width=390, height=844)
    assert page.evaluate("() => document.documentElement.scrollWidth") <= 390


def test_the_sha_is_copied(synthetic: Served, visit: Visit) -> None:
    page = visit(f"{synthetic.url}/checkpoints/8", permissions=["clipboard-read", "clipboard-write"])
    button = page.locator("button[data-copies]").last
    button.click()
    expect(page.locator("#told")).to_have_text("Copied.")
    assert page.evaluate("() => navigator.clipboard.readText()") == button.get_attribute("data-copies")
