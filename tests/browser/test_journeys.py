"""A viewer follows links from what happens now to a system, to an event, to its cause, and to the checkpoint."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from playwright.sync_api import expect
from ratchet.ledger.lineage import lineage
from ratchet.ledger.tables import DeadLetterRow
from sqlalchemy import func, select

from tests.support.pages import Served
from tests.support.visits import Visit

pytestmark = pytest.mark.slow


def test_from_now_to_a_system_to_an_event_to_its_cause_to_a_checkpoint(synthetic: Served, visit: Visit) -> None:
    page = visit(synthetic.url)
    page.locator(".loop").get_by_role("link", name="regression", exact=True).click()
    expect(page).to_have_url(re.compile("/systems/regression$"))
    page.get_by_role("link", name="why now").first.click()
    expect(page.get_by_role("heading", level=1)).to_have_text("checkpoint.evaluated")
    page.locator(".causes").get_by_role("link", name="checkpoint.saved").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("checkpoint.saved")
    page.get_by_role("main").get_by_role("link", name=re.compile(r"^#\d+$")).first.click()
    expect(page).to_have_url(re.compile(r"/checkpoints/\d+$"))


def test_filters_are_in_the_address(synthetic: Served, visit: Visit) -> None:
    page = visit(f"{synthetic.url}/journal")
    page.get_by_label("About").fill("#3")
    page.get_by_role("button", name="Filter").click()
    expect(page).to_have_url(re.compile(r"about=%233"))
    expect(page.get_by_label("About")).to_have_value("#3")
    expect(page.locator(".journal > li").first).to_contain_text("#3")


def test_a_dead_letter_is_tried_again_and_training_paused(
    serve: Callable[..., Served], template_home: Path, tmp_path: Path, visit: Visit
) -> None:
    served = serve(shutil.copytree(template_home, tmp_path / "home"))
    page = visit(f"{served.url}/systems#dead")
    with closing(served.ledger) as ledger:

        def still_open() -> int:
            with ledger.read() as session:
                query = select(func.count()).select_from(DeadLetterRow).where(DeadLetterRow.resolved_at.is_(None))
                return session.scalar(query) or 0

        before = still_open()
        page.get_by_role("button", name="Try again").first.click()
        page.get_by_role("dialog").get_by_role("button", name="Try again").click()
        expect(page.locator("#told")).to_contain_text("will try")
        expect(page.locator("#dead-title")).to_contain_text(f"{before - 1} open")
        assert still_open() == before - 1
        page.goto(f"{served.url}/systems/training")
        page.get_by_role("button", name="Pause training").click()
        page.get_by_role("dialog").get_by_role("button", name="Pause training").click()
        expect(page.get_by_role("button", name="Resume training")).to_be_visible()
        with ledger.read() as session:
            assert lineage(session).paused
