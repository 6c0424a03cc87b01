"""What must hold on every page: it opens, all can use it, on a phone too, and hostile text stays text."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page as Tab
from ratchet.web.pages import PAGES

from tests.support.crawl import crawl, is_page, kind_of
from tests.support.pages import Served
from tests.support.visits import Visit, until

pytestmark = pytest.mark.slow

AXE = (Path(__file__).parent / "axe.min.js").read_text(encoding="utf-8")
COLOURS = ("color-contrast", "link-in-text-block")
"""The rules of axe that another colour scheme can break, and the slowest ones."""
DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
LOADED = "!document.querySelector('figure.chart .plot:empty') && document.readyState === 'complete'"
FITTED = """[...document.querySelectorAll("figure.chart .plot .u-wrap")]
  .every((node) => node.offsetWidth <= node.closest(".plot").clientWidth)"""
"""The charts have the width of the window: they are drawn anew a moment after it has changed."""
WIDE = """() => {
  const most = document.documentElement.clientWidth;
  const isScrolled = (node) => node && node !== document.body &&
    (["auto", "scroll", "hidden", "clip"].includes(getComputedStyle(node).overflowX) || isScrolled(node.parentElement));
  return document.documentElement.scrollWidth <= most ? [] : [...document.querySelectorAll("body *")]
    .filter((node) => node.getBoundingClientRect().right > most + 1 && !isScrolled(node.parentElement))
    .map((node) => `${node.tagName} ${node.id} ${node.className}: ${node.textContent.trim().slice(0, 60)}`);
}"""


@pytest.fixture(params=["plain", "hostile"])
def served(request: pytest.FixtureRequest) -> Served:
    found: Served = request.getfixturevalue({"plain": "synthetic", "hostile": "hostile"}[request.param])
    return found


@cache
def answers(url: str) -> dict[str, Any]:
    """All that the pages lead to, asked for once a process."""
    return crawl(url, [page.path for page in PAGES])


def addresses(url: str, first: str) -> list[str]:
    """One address of each kind below a page of the menu."""
    kinds = {kind_of(each): each for each, answer in reversed(answers(url).items()) if is_page(answer)}
    own = max((page.path for page in PAGES), key=lambda path: (first.startswith(path), len(path)))
    return sorted(each for each in kinds.values() if page_of(each) == own)


def page_of(address: str) -> str:
    """The page of the menu that an address belongs to."""
    paths = [page.path for page in PAGES if page.path != "/" and address.startswith(page.path)]
    return max(paths, key=len, default="/")


def test_every_link_leads_somewhere(served: Served) -> None:
    found = answers(served.url)
    assert len({kind_of(address) for address in found}) > len(PAGES)
    wrong = {address: answer.status_code for address, answer in found.items() if answer.status_code != 200}
    assert wrong == {}


@pytest.mark.parametrize("path", [page.path for page in PAGES], ids=[page.name for page in PAGES])
def test_everyone_can_use_it(path: str, served: Served, visit: Visit) -> None:
    """Hostile text has the same colours as any other, so that they are looked at once; its pages are opened dark."""
    is_hostile = "hostile" in served.home.parent.name
    found: list[str] = []
    tab = visit("about:blank")
    for address in addresses(served.url, path):
        tab.set_viewport_size(DESKTOP)
        tab.emulate_media(color_scheme="dark" if is_hostile else "light")
        tab.goto(served.url + address)
        tab.evaluate("() => document.querySelectorAll('details').forEach((node) => (node.open = true))")
        until(tab, LOADED)
        tab.evaluate(AXE)
        if is_hostile:
            problems = serious(tab, "dark", {"rules": {rule: {"enabled": False} for rule in COLOURS}}) + harmed(tab)
        else:
            problems = serious(tab, "light", {})
            tab.emulate_media(color_scheme="dark")
            problems += serious(tab, "dark", {"runOnly": {"type": "rule", "values": COLOURS}})
        tab.set_viewport_size(PHONE)
        until(tab, FITTED)
        problems += [f"wide: {each}" for each in tab.evaluate(WIDE)[:5]]
        found += [f"{address} {problem}" for problem in problems]
    assert not found, "\n".join(found)


def serious(tab: Tab, scheme: str, options: dict[str, Any]) -> list[str]:
    """Findings of axe that keep people from using a page."""
    result = tab.evaluate("(options) => axe.run(document, options)", {"resultTypes": ["violations"], **options})
    return [
        f"{scheme}: {found['id']}: {node['html'][:160]} {node.get('failureSummary', '')[:200]}"
        for found in result["violations"]
        if found["impact"] in ("serious", "critical")
        for node in found["nodes"][:3]
    ]


def harmed(tab: Tab) -> list[str]:
    """What hostile text has done to the page."""
    found = []
    if tab.evaluate("typeof window.xss") != "undefined":
        found.append("a script of the text ran")
    if tab.locator("img[src='x'], script:not([src]), [onerror]").count():
        found.append("text became markup")
    if hrefs := tab.evaluate("() => [...document.links].map((a) => a.protocol).filter((p) => !/^https?:$/.test(p))"):
        found.append(f"links to {hrefs}")
    if "49 ${" in tab.content():
        found.append("a template in the text was evaluated")
    if tab.evaluate(r"() => /[\u202a-\u202e\u2066-\u2069\x1b\x07]/.test(document.body.textContent)"):
        found.append("control characters are on the page")
    return found


def test_hostile_text_is_shown(hostile: Served, visit: Visit) -> None:
    """The tests above would pass on pages that leave it out."""
    shown = "\n".join(answer.text for answer in answers(hostile.url).values() if is_page(answer))
    for text in ("&lt;script&gt;window.xss=1&lt;/script&gt;", "{{7*7}}", "javascript:alert(1)", "\\x1b[31mred"):
        assert text in shown


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_keyboard_reaches_everything(page: Any, synthetic: Served, visit: Visit) -> None:
    tab = visit(synthetic.url + page.path)
    focused = "document.activeElement"
    tab.keyboard.press("Tab")
    assert tab.evaluate(f"{focused}.className") == "skip"
    seen = []
    for _ in range(len(PAGES) + 6):
        tab.keyboard.press("Tab")
        seen.append(tab.evaluate(f"{focused}.closest('.menu') ? {focused}.textContent : ''"))
    assert [each for each in seen if each] == [each.title for each in PAGES]
    tab.goto(synthetic.url + page.path)
    tab.keyboard.press("Tab")
    tab.keyboard.press("Enter")
    assert tab.evaluate(f"{focused}.id") == "main"
