"""The report: the pages of the Control Room in one file, which needs no server and no network.

The same functions read the ledger and the same templates draw it. What acts is left out, links lead to sections of the
file or are plain text, and the data of the charts is embedded.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from markupsafe import Markup

from ratchet.atomic_files import atomic_write
from ratchet.ledger import Ledger
from ratchet.settings import Settings
from ratchet.views.topics import Reader
from ratchet.web.pages import PAGES
from ratchet.web.rendering import browser_json
from ratchet.web.site import Page, Site

STATIC = Path(__file__).parent / "static"
SCRIPTS = ("vendor/uPlot.iife.min.js", "times.js", "charts.js")
STYLES = ("vendor/uPlot.min.css", "style.css", "report.css")

_ID = re.compile(r'(?<= )(id|for|aria-labelledby)="([\w-]+)"')
_LINK = re.compile(r'(?<=<a )([^>]*?)href="([^"]*)"')
_SOURCE = re.compile(r'data-source="([^"]+)"')


def write_report(settings: Settings, ledger: Ledger, path: Path) -> int:
    """Write the file, which appears whole; returns its size in bytes."""
    site = Site(settings, ledger, PAGES)
    with site.reading() as reader:
        text = _Report(site, reader).text(ledger.now())
    atomic_write(path, text)
    return len(text.encode())


class _Report:
    """One report, while it is put together."""

    def __init__(self, site: Site, reader: Reader):
        self._site, self._reader = site, reader
        self._pages = [page for page in site.pages if page.in_report]
        self._details = [(page, detail) for page in self._pages for detail in page.details(reader)]
        self._anchors = {page.path: page.name for page in self._pages}
        self._anchors |= {detail.path: anchor_of(detail.path) for _, detail in self._details}
        self._sources = {path: source for page in site.pages for path, source in page.sources.items()}
        self._data: dict[str, Markup] = {}

    def text(self, made_at: float) -> str:
        frame = self._site.frame(self._pages[0])
        shown: str = self._site.templates.get_template("report.html").render(
            **frame,
            made_at=made_at,
            contents=[(page.name, page.title) for page in self._pages],
            sections=list(self._sections()),
            data=self._data,
            styles=Markup("\n".join(_read(name) for name in STYLES)),
            first_script=Markup(_read("theme.js")),
            scripts=Markup("\n".join(_read(name) for name in SCRIPTS)),
        )
        return shown

    def _sections(self) -> Iterator[Markup]:
        for page in self._pages:
            yield self._section(page, f"{page.name}.html", page.name, page.read(self._reader, {}))
        for page, detail in self._details:
            yield self._section(page, detail.template, anchor_of(detail.path), detail.read(self._reader, {}))

    def _section(self, page: Page, template: str, anchor: str, found: Mapping[str, Any]) -> Markup:
        frame = {**self._site.frame(page), "in_file": True, "read_only": True, "layout": "section.html"}
        text: str = self._site.templates.get_template(template).render(**frame, url="", anchor=anchor, **found)
        text = _ID.sub(lambda match: f'{match[1]}="{_own_id(anchor, match[2])}"', text)
        text = _LINK.sub(lambda match: f"{match[1]}{self._link(anchor, match[2])}", text)
        return Markup(_SOURCE.sub(lambda match: f'data-source="#{self._embedded(match[1])}"', text))

    def _link(self, anchor: str, address: str) -> str:
        """The attribute for a link: to a section of the file, to another site, or none."""
        if address.startswith("#"):
            return f'href="#{_own_id(anchor, address[1:])}"'
        if address.startswith(("http://", "https://")):
            return f'href="{address}"'
        known = self._anchors.get(unquote(urlsplit(address.replace("&amp;", "&")).path))
        return f'href="#{known}"' if known else ""

    def _embedded(self, address: str) -> str:
        parts = urlsplit(address.replace("&amp;", "&"))
        name = f"data-{anchor_of(address)}"
        if name not in self._data:
            source: Callable[..., Mapping[str, Any]] = self._sources[parts.path]
            values = dict(source(self._reader, dict(parse_qsl(parts.query))))
            self._data[name] = Markup(browser_json(values).replace("<", "\\u003c"))
        return name


def anchor_of(address: str) -> str:
    """A name for a section or a chart's data: ``checkpoints-7`` of ``/checkpoints/7``."""
    return re.sub(r"[^\w]+", "-", address).strip("-")


def _own_id(anchor: str, name: str) -> str:
    return name if name.startswith(anchor) else f"{anchor}-{name}"


def _read(name: str) -> str:
    return (STATIC / name).read_text(encoding="utf-8")
