from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from evaluator.systems.regression import SYSTEM as REGRESSION
from ratchet.artifacts import ArtifactStore
from ratchet.build import Build
from ratchet.errors import PreconditionFailed
from ratchet.ledger import Ledger, health
from ratchet.ledger.migrate import migrate
from ratchet.ledger.tables import WorkerRow
from ratchet.settings import Settings
from ratchet.systems import Subject, Verdict, registry
from ratchet.systems.controller import Controller
from ratchet.worker.registration import Registration, StatusFile

from tests.support.bus import InlineChildren
from tests.support.home import small_home
from tests.support.ledgers import pretend_newer

NAME = "regression@here+0"


@pytest.fixture
def migrated(tmp_path: Path) -> Iterator[Ledger]:
    ledger = Ledger(f"sqlite:///{tmp_path / 'ledger.db'}")
    migrate(ledger)
    yield ledger
    ledger.close()


@pytest.fixture
def registration(migrated: Ledger, tmp_path: Path) -> Registration:
    found = Registration(migrated, registry.get("regression"), NAME, Settings(home=tmp_path))
    found.enter()
    return found


def row(ledger: Ledger) -> WorkerRow:
    with ledger.read() as session:
        found = session.get(WorkerRow, NAME)
    assert found is not None
    return found


def test_the_register_has_each_workers_build(migrated: Ledger, registration: Registration) -> None:
    registration.seen()
    assert row(migrated).version == str(Build.of("evaluator"))


def test_a_ledger_that_becomes_newer_than_its_worker_is_refused(migrated: Ledger, registration: Registration) -> None:
    """Checking only at the start would let it work on with tables that it does not know."""
    before = row(migrated).seen_at
    pretend_newer(migrated)
    with pytest.raises(PreconditionFailed, match="which this version does not know"):
        registration.seen()
    assert row(migrated).seen_at == before


def restarted(ledger: Ledger, home: Path) -> Registration:
    """A worker of the same name, whose predecessor left no status."""
    found = Registration(ledger, registry.get("regression"), NAME, Settings(home=home))
    found.enter()
    return found


def failing(ledger: Ledger) -> list[str]:
    with ledger.read() as session:
        return [worker.name for worker in health.failing_workers(session, ledger.now())]


def test_early_deaths_without_an_error_are_counted_from_the_second_on(
    migrated: Ledger, registration: Registration, tmp_path: Path
) -> None:
    """Killed for its memory, or ended by the watchdog, without time to report."""
    restarted(migrated, tmp_path)
    assert failing(migrated) == []
    second = restarted(migrated, tmp_path)
    second.seen()
    assert failing(migrated) == [NAME]
    assert (row(migrated).state, row(migrated).failures) == ("running", 2)
    assert "died soon after its start" in str(row(migrated).error)
    with migrated.write() as tx:
        tx.session.get_one(WorkerRow, NAME).started_at -= 61.0
    second.seen()
    assert failing(migrated) == []
    assert (row(migrated).error, row(migrated).failures) == (None, 0)


def test_a_worker_that_stopped_or_ran_long_has_not_failed(
    migrated: Ledger, registration: Registration, tmp_path: Path
) -> None:
    registration.leave()
    restarted(migrated, tmp_path)
    with migrated.write() as tx:
        tx.session.get_one(WorkerRow, NAME).started_at -= 3_600.0
    restarted(migrated, tmp_path)
    assert row(migrated).failures == 0


def test_late_status_of_a_lane_does_not_mark_a_stopping_worker_as_running(
    migrated: Ledger, registration: Registration, tmp_path: Path
) -> None:
    controller = Controller(
        registry.get("regression"),
        Settings(home=tmp_path),
        migrated,
        ArtifactStore(f"file://{tmp_path}/artifacts"),
        InlineChildren(),
        NAME,
    )
    registration.follow(controller)
    controller.stop.set()
    registration.stopping()
    registration.resumed("judge")
    assert row(migrated).state == "stopping"


def test_a_status_replaces_the_whole_record(tmp_path: Path) -> None:
    path = tmp_path / "regression.json"
    path.write_text('{"checks": [{"step": 1, "metr')
    with small_home(tmp_path / "run") as home:
        status = StatusFile(path, home.bus(REGRESSION).controllers["regression"])
        status.write("idle")
        first = json.loads(path.read_text())
        for number in range(50):
            status.decided("judge", Subject("checkpoint", f"c{number:04}"), Verdict("cleared", "as good"), 0.1)
            status.write("working")
    last = json.loads(path.read_text())
    assert (first["system"], first["state"], first["last"]) == ("regression", "idle", None)
    assert (last["state"], last["last"]["subject_id"]) == ("working", "c0049")
    assert last.keys() == first.keys()
    assert [file.name for file in tmp_path.glob("*") if file.is_file()] == ["regression.json"]
