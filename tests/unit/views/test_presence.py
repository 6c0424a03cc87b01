"""Whether anything is at work on a home, and what the pages and the header say where nothing is."""

from __future__ import annotations

from pathlib import Path

from ratchet.ledger import Ledger
from ratchet.ledger.ledger import clock
from ratchet.ledger.tables import ServingRow, WorkerRow
from ratchet.run.run_lock import hold_home
from ratchet.settings import Settings
from ratchet.views.presence import Presence, read_presence
from ratchet.views.reading import training_now
from sqlalchemy import delete, update


def presence(ledger: Ledger, home: Path) -> Presence:
    with ledger.read() as session:
        return read_presence(session, Settings(home=home), clock(session))


def line(ledger: Ledger, home: Path) -> str:
    with ledger.read() as session:
        return str(training_now(session, Settings(home=home))["line"])


def test_a_home_without_a_run_is_stopped_and_says_how_to_start_it(empty_ledger: Ledger, home: Path) -> None:
    found = presence(empty_ledger, home)
    assert (found.state, found.is_new, dict(found.hosts)) == ("stopped", True, {})
    assert "ratchet run" in line(empty_ledger, home)


def test_a_first_run_prepares_until_something_is_live(empty_ledger: Ledger, home: Path) -> None:
    with hold_home(home):
        assert presence(empty_ledger, home).state == "preparing"
        assert line(empty_ledger, home) == "preparing the base model and the test suites"


def test_a_later_run_starts_its_workers(ledger: Ledger, home: Path) -> None:
    with ledger.write() as tx:
        tx.session.execute(update(WorkerRow).values(state="stopped"))
    assert presence(ledger, home).state == "stopped"
    with hold_home(home):
        found = presence(ledger, home)
        assert (found.state, found.is_new) == ("starting", False)


def test_workers_that_were_seen_lately_are_at_work_wherever_they_run(ledger: Ledger, home: Path) -> None:
    with ledger.write() as tx:
        tx.session.execute(update(WorkerRow).values(state="running", seen_at=clock(tx.session), host="judge-2"))
    found = presence(ledger, home)
    assert found.state == "at work"
    assert set(found.hosts) == {"judge-2"}
    assert found.line == ""
    assert "ratchet run" not in line(ledger, home)


def test_workers_of_a_run_that_has_deployed_nothing_yet_are_at_work(ledger: Ledger, home: Path) -> None:
    with ledger.write() as tx:
        tx.session.execute(update(WorkerRow).values(state="running", seen_at=clock(tx.session)))
        tx.session.execute(delete(ServingRow))
    assert presence(ledger, home).state == "at work"
