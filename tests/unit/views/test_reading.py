from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ratchet.capacity import disk_shortage
from ratchet.cli.status import as_values
from ratchet.ledger import Ledger, health
from ratchet.ledger.migrate import migrate
from ratchet.ledger.tables import BatchRow, CheckpointRow, TaskRow
from ratchet.settings import Settings
from ratchet.views.reading import CHUNK, read_checkpoints, read_view
from ratchet.views.view_model import TaskView, training_line
from sqlalchemy import event

from tests.support.disk import SmallDisk, fill, free
from tests.support.home import small_home
from tests.support.rows import verdict

DATA = Path(__file__).parents[2] / "data"


def test_any_number_of_checkpoints_can_be_read(tmp_path: Path) -> None:
    """An engine takes 32,766 values in a query, and no more."""
    ledger = Ledger(f"sqlite:///{tmp_path / 'ledger.db'}")
    migrate(ledger)
    values: list[int] = []
    event.listen(ledger.engine, "before_cursor_execute", lambda *told: values.append(len(told[3])))
    columns: dict[str, Any] = {"step": 0, "tokens": 0, "weights": "", "artifact": "", "size_bytes": 0, "state": "saved"}
    rows = [CheckpointRow(id=str(n), ordinal=n, **columns) for n in range(2 * CHUNK + 500)]
    with ledger.read() as session:
        looks = read_checkpoints(session, rows)
    ledger.close()
    assert [look.ordinal for look in looks] == list(range(len(rows)))
    assert max(values) < CHUNK + 10


def test_the_disk_warning_is_that_of_doctor(ledger: Ledger, small_disk: SmallDisk) -> None:
    settings = Settings(home=small_disk(64_000_000) / "home")
    (nearly,) = read_view(ledger, settings).warnings
    assert nearly == disk_shortage(settings.home)
    assert nearly.startswith(
        f"the disk of {settings.home.parent} is nearly full, with less than 100 MB free: make room"
    )
    fill(settings.home.parent)
    (full,) = read_view(ledger, settings).warnings
    assert full.startswith(f"the disk of {settings.home.parent} is full: make room, lower retention.checkpoints_gb")
    free(settings.home.parent)
    assert read_view(ledger, settings).warnings == (nearly,)


def test_a_disk_with_room_gives_no_warning(ledger: Ledger, small_disk: SmallDisk) -> None:
    assert read_view(ledger, Settings(home=small_disk(4_000_000_000))).warnings == ()


def test_a_damaged_artifact_gives_one_warning(ledger: Ledger, small_disk: SmallDisk) -> None:
    with ledger.write() as tx:
        for number in range(3):
            waits = f"checkpoint cp-{number} waits until it is there again."
            health.record_damage(tx, "ab" * 32, "abab is damaged.", "testing", "checkpoint", f"cp-{number}", waits)
        health.record_damage(tx, "cd" * 32, "cdcd is damaged.", "testing", "checkpoint", "cp-0", "It waits.")
    settings = Settings(home=small_disk(4_000_000_000))
    assert read_view(ledger, settings).warnings == (
        "cdcd is damaged. It waits.",
        "abab is damaged. checkpoint cp-0 waits until it is there again. 3 subjects are affected.",
    )


def test_tasks_are_read_with_the_reason_where_they_are_used_up(ledger: Ledger, small_disk: SmallDisk) -> None:
    fixed: dict[str, Any] = {"kind": "user", "metric": "loss", "grader": None, "pattern": None, "source": "menus.csv"}
    numbers: dict[str, Any] = {"held_out": {}, "rows": 90, "held_rows": 30, "created_at": 1.0, "updated_at": 1.0}
    told = {"passes": 8.0, "state": "used_up", "reason": "no better."}
    with ledger.write() as tx:
        tx.session.add(TaskRow(name="menus", **fixed, **numbers, **told))
    view = read_view(ledger, Settings(home=small_disk(4_000_000_000)))
    assert view.tasks == (TaskView("menus", 8.0, "used_up", "no better."),)
    assert as_values(view)["tasks"] == [{"name": "menus", **told}]


@pytest.mark.parametrize(
    ("state", "untested", "said"),
    [
        ("active", True, "waiting for the judges"),
        ("active", False, "waiting for data"),
        ("used_up", False, "all rows are used up"),
    ],
)
def test_an_idle_trainer_says_what_it_waits_for(tmp_path: Path, state: str, untested: bool, said: str) -> None:
    with small_home(tmp_path / "run", own_data=[DATA / "babi_qa1_100.jsonl"]) as home:
        with home.ledger.write() as tx:
            tx.session.query(BatchRow).one().state = "stored"
            tx.session.query(TaskRow).one().state = state
            if not untested:
                tx.session.add(verdict("testing", "checkpoint", home.base_id(), "evaluated"))
        shown = read_view(home.ledger, home.settings).training
        assert training_line(shown).startswith(said)
