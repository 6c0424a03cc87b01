"""On a phone: the whole menu is in view, the loop is short, and words of a table are not broken in the middle."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, expect
from ratchet.web.pages import PAGES

from tests.support.pages import Served
from tests.support.visits import Visit

pytestmark = pytest.mark.slow

PHONE = {"width": 390, "height": 844}
BROKEN_CELLS = """() => {
  const lines = (node) => {
    const range = document.createRange();
    const rows = new Set();
    range.selectNodeContents(node);
    for (const box of range.getClientRects()) if (box.width) rows.add(Math.round(box.top));
    return rows.size;
  };
  return [...document.querySelectorAll("td, th")].filter((node) => node.checkVisibility() && !node.children.length)
    .filter((node) => node.textContent.trim().length < 40 && !/\\s/.test(node.textContent.trim()) && lines(node) > 1)
    .map((node) => node.textContent.trim());
}"""


def open_page(visit: Visit, served: Served, path: str = "/") -> Page:
    return visit(served.url + path, **PHONE)


def test_all_pages_of_the_menu_are_in_view(synthetic: Served, visit: Visit) -> None:
    page = open_page(visit, synthetic, "/settings")
    for each in PAGES:
        box = (
            page.get_by_role("navigation", name="Pages").get_by_role("link", name=each.title, exact=True).bounding_box()
        )
        assert box is not None
        assert box["x"] >= 0, each.title
        assert box["x"] + box["width"] <= PHONE["width"], each.title
        assert box["y"] + box["height"] < PHONE["height"] / 3, each.title


def test_the_loop_shows_only_the_systems_that_have_something_to_do(synthetic: Served, visit: Visit) -> None:
    page = open_page(visit, synthetic)
    idle, others = page.locator(".loop .is-idle"), page.locator(".loop .parts li:not(.is-idle)")
    assert idle.count() > 0
    assert others.count() > 0
    for each in idle.all():
        expect(each).to_be_hidden()
    for each in others.all():
        expect(each).to_be_visible()
    page.set_viewport_size({"width": 1280, "height": 900})
    expect(idle.first).to_be_visible()


@pytest.mark.parametrize("path", ["/curriculum", "/mistakes", "/checkpoints", "/data", "/systems"])
def test_a_word_in_a_table_stays_whole(path: str, synthetic: Served, visit: Visit) -> None:
    assert open_page(visit, synthetic, path).evaluate(BROKEN_CELLS) == []


@pytest.mark.parametrize(
    ("text", "commands"),
    [("`ratchet run` starts it: `make run`", ["ratchet run", "make run"]), ("5` of 6 <b>x</b>", [])],
)
def test_a_command_in_a_message_is_in_a_fixed_font(
    text: str, commands: list[str], synthetic: Served, visit: Visit
) -> None:
    page = open_page(visit, synthetic)
    page.evaluate("text => told(text)", text)
    assert page.locator("#told code").all_text_contents() == commands
    expect(page.locator("#told")).to_have_text(text.replace("`", "") if commands else text)
