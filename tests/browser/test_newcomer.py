"""A newcomer's way through the Control Room of a real run, without a terminal."""

from __future__ import annotations

import re
import tarfile
import time
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect
from ratchet.ledger.deployments import serving
from ratchet.ledger.tables import BatchRow, BlockRow, CheckpointRow, DeploymentRow, VerdictRow
from sqlalchemy import select

from tests.support.pages import Run
from tests.support.visits import Visit

ROWS = Path(__file__).parents[1] / "data" / "babi_qa1_100.jsonl"
SLOW_MS = 300_000.0
"""Beside a run, which uses both cores."""


def champion(run: Run) -> int:
    with run.ledger.read() as session:
        return session.get_one(CheckpointRow, serving(session).desired_id).ordinal


def confirm(page: Page, button: str, reason: str) -> None:
    """Open the dialog of a button, give the reason, and send it."""
    page.get_by_role("button", name=button).first.click()
    dialog = page.locator("dialog[open]")
    dialog.get_by_label(re.compile("^Reason")).fill(reason)
    dialog.locator("button[type=submit]").click()
    expect(page.locator("dialog[open]")).to_have_count(0)


def test_from_the_first_deployment_to_an_export(run: Run, visit: Visit, tmp_path: Path) -> None:
    page = visit(run.url)
    page.set_default_timeout(SLOW_MS)
    expect.set_options(timeout=SLOW_MS)

    # What is live, and why?
    page.get_by_role("link", name="Why, and how to go back").click()
    expect(page.get_by_role("heading", name="Why it is live")).to_be_visible()
    expect(page.locator("main")).to_contain_text(re.compile(r"\d+ gains and \d+ losses on [\d,]+ held-out items"))

    # A veto: it goes back, and nothing else is deployed meanwhile.
    confirm(page, "Freeze", "a person looks at it first")
    expect(page.locator("main")).to_contain_text("a person looks at it first")
    vetoed = champion(run)
    confirm(page, "Roll back to", "I do not trust it")
    expect(page.locator("main .big .badge.live")).to_be_visible()
    with run.ledger.read() as session:
        action = session.scalars(select(DeploymentRow).order_by(DeploymentRow.id.desc())).first()
        blocked = session.scalars(select(BlockRow)).all()
    assert action is not None
    assert (action.action, action.actor, action.reason) == ("rollback", "operator", "I do not trust it")
    assert [row.reason for row in blocked] == ["I do not trust it"]
    assert champion(run) < vetoed
    expect(page.locator("#blocks")).to_contain_text(f"#{vetoed}")

    # Rows of one's own: checked, added, gated and trained on.
    page.get_by_role("navigation", name="Pages").get_by_role("link", name="Data").click()
    page.locator("input[type=file]").set_input_files(ROWS)
    page.get_by_role("button", name="Add these rows").click()
    expect(page.get_by_role("heading", name="The rows were added")).to_be_visible()
    wait_for_training(run)
    page.get_by_role("navigation", name="Pages").get_by_role("link", name="Data").click()
    expect(page.locator("main")).to_contain_text("babi_qa1")

    # A question to the live model and to the vetoed one, which is loaded for it.
    page.get_by_role("navigation", name="Pages").get_by_role("link", name="Playground").click()
    page.goto(f"{page.url}?model=live&model={vetoed}")
    page.get_by_label(re.compile("question|ask", re.IGNORECASE)).first.fill("sort:321")
    page.get_by_role("button", name="Ask", exact=True).click()
    expect(page.locator(".answer .from")).to_have_count(2)
    expect(page.locator("#send")).to_be_enabled()
    for answer in page.locator(".answer").all():
        expect(answer.locator(".problem")).to_be_hidden()
        expect(answer.locator(".from")).to_be_visible()

    # An export.
    page.goto(f"{run.url}/checkpoints/champion")
    page.get_by_role("link", name="Export").click()
    page.get_by_role("button", name=re.compile("export|write", re.IGNORECASE)).first.click()
    with page.expect_download() as started:
        page.get_by_role("link", name=re.compile("download", re.IGNORECASE)).click()
    started.value.save_as(tmp_path / "model.tar")
    with tarfile.open(tmp_path / "model.tar") as archive:
        names = archive.getnames()
    assert any(name.endswith("model.safetensors") for name in names), names
    assert any(name.endswith("README.md") for name in names), names


def wait_for_training(run: Run) -> None:
    """Until a batch with rows of the new task has been trained on."""
    trained = select(BatchRow.provenance).join(VerdictRow, VerdictRow.subject_id == BatchRow.id)
    trained = trained.where(VerdictRow.system == "training", VerdictRow.outcome == "trained")
    deadline = time.monotonic() + SLOW_MS / 1000
    while time.monotonic() < deadline:
        with run.ledger.read() as session:
            found = session.scalars(trained).all()
        if any("babi_qa1" in provenance.get("tasks", {}) for provenance in found):
            return
        time.sleep(1.0)
    pytest.fail("the rows were not trained on")
