"""The first page before, at and after a run, and lists of one."""

from __future__ import annotations

from pathlib import Path

import pytest
from ratchet.ledger import Ledger
from ratchet.ledger.ledger import clock
from ratchet.ledger.tables import CheckpointRow, WorkerRow
from ratchet.run.run_lock import hold_home
from ratchet.settings import Settings
from ratchet.views.view_model import Busy
from ratchet.web.pages.now import MOST_WORK, Part
from sqlalchemy import select, update

from tests.support.viewer import Viewer

FOLDER = "/home/me/models/an-organisation--SmolLM2-135M-Instruct-with-a-long-name"


def test_before_the_first_run_the_page_says_how_to_start_it(home: Path, empty_ledger: Ledger) -> None:
    shown = Viewer(home, empty_ledger).get("/")
    assert "Nothing is at work yet. <code>ratchet run</code>" in shown
    assert "preparing" not in shown


def test_while_a_first_run_prepares_no_page_asks_to_start_it(home: Path, empty_ledger: Ledger) -> None:
    viewer = Viewer(home, empty_ledger)
    with hold_home(home):
        now, systems = viewer.get("/"), viewer.get("/systems")
    assert "The run is preparing the base model and the test suites" in now
    assert "the run is preparing the base model and the test suites" in systems
    assert "ratchet run" not in now
    assert "starts them all" not in systems


def test_a_run_that_was_stopped_is_said_to_continue(home: Path, ledger: Ledger) -> None:
    with ledger.write() as tx:
        tx.session.execute(update(WorkerRow).values(state="stopped"))
    assert "continues where it stopped" in Viewer(home, ledger).get("/")
    with ledger.write() as tx:
        tx.session.execute(update(WorkerRow).values(state="running", seen_at=clock(tx.session)))
    assert "continues where it stopped" not in Viewer(home, ledger).get("/")


def test_a_model_is_called_by_its_folder_and_the_whole_path_is_a_hint(home: Path, ledger: Ledger) -> None:
    settings = Settings.model_validate({"home": home, "model": {"path": FOLDER}})
    shown = Viewer(home, ledger, settings).get("/")
    name = FOLDER.rpartition("/")[2]
    assert f'title="{FOLDER}">{name}</span>' in shown


@pytest.mark.parametrize(
    ("note", "said"),
    [
        ("", "#0"),
        ("c0000-aaaaaa eval 3/51", "#0: eval 3/51"),
        ("loading", "#0: loading"),
        ("x" * 500, "#0: " + "x" * (MOST_WORK - 5) + "…"),
    ],
)
def test_what_a_system_works_on_is_said_once(note: str, said: str) -> None:
    assert Part("testing", Busy("testing", "#0", 0.0, note), 0, None, is_failing=False).work == said


def test_a_single_checkpoint_is_counted_as_one_and_is_compared_with_none(home: Path, ledger: Ledger) -> None:
    viewer = Viewer(home, ledger)
    with ledger.read() as session:
        number = session.scalars(select(CheckpointRow.ordinal).order_by(CheckpointRow.ordinal.desc())).first()
    assert "Compare the two ticked" in viewer.get("/checkpoints")
    alone = viewer.get(f"/checkpoints?text=%23{number}")
    assert "1 checkpoint<" in alone
    assert "Compare the two ticked" not in alone
