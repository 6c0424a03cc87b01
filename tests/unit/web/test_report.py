"""The report: all pages in one file, with embedded data, no actions, and nothing loaded from elsewhere."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from ratchet.cli.main import app
from ratchet.ledger import Ledger
from ratchet.web.pages import PAGES
from typer.testing import CliRunner


@pytest.fixture
def text(ledger: Ledger, tmp_path: Path) -> str:
    ledger.now()
    result = CliRunner().invoke(app, ["report", "--to", str(tmp_path / "report.html")])
    assert result.exit_code == 0, result.output
    return (tmp_path / "report.html").read_text()


def test_every_page_is_a_section(text: str) -> None:
    for page in PAGES:
        assert (f'<section class="page" id="{page.name}"' in text) == page.in_report


def test_nothing_is_loaded_from_elsewhere_and_nothing_acts(text: str) -> None:
    body = text[text.index("<body>") :]
    assert not re.search(r"<(script|img|link|iframe)[^>]+(src|href)=", text)
    assert "hx-post" not in body
    assert "data-opens" not in body.partition('<script type="application/json"')[0]


def test_links_lead_into_the_file(text: str) -> None:
    page = text[: text.rindex("<script>")]
    ids = re.findall(r' id="([^"]+)"', page)
    assert len(ids) == len(set(ids)), "ids are unique"
    for address in re.findall(r'<a [^>]*href="([^"]+)"', page):
        assert address.startswith(("http://", "https://")) or address[1:] in ids, address


def test_charts_have_their_data(text: str) -> None:
    sources = re.findall(r'data-source="#([^"]+)"', text)
    assert sources
    for source in sources:
        found = re.search(rf'<script type="application/json" id="{source}">(.*?)</script>', text, re.DOTALL)
        assert found is not None, source
        assert "series" in json.loads(found[1])
