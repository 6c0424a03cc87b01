from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from ratchet.artifacts import ArtifactStore
from ratchet.errors import ChildFailed
from ratchet.events import Event
from ratchet.events.catalogue import BatchQueued, BatchSubmitted
from ratchet.ledger import Ledger
from ratchet.ledger.migrate import migrate
from ratchet.ledger.tables import CounterRow, DeadLetterRow, VerdictRow
from ratchet.settings import Settings
from ratchet.systems import Lane, Outcome, Subject, System, Verdict, Work
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from tests.support.bus import InProcessBus


def find_counters(session: Session, _settings: Settings) -> Sequence[Subject]:
    return [
        Subject("counter", name) for name in session.scalars(select(CounterRow.name).where(CounterRow.name.like("c%")))
    ]


def find_gated(session: Session, _settings: Settings) -> Sequence[Subject]:
    query = select(VerdictRow.subject_id).where(VerdictRow.system == "gate")
    return [Subject("counter", name) for name in session.scalars(query)]


def gate(work: Work) -> Outcome:
    return Verdict("passed", "", events=(BatchQueued(batch_id=work.subject.id),))


def mend(work: Work) -> Outcome:
    result = work.child(f"{__name__}:child", {"name": work.subject.id})
    return Verdict("mended", "", numbers=result)


def child(spec: dict[str, str], progress: object) -> dict[str, object]:
    assert callable(progress)
    progress({"note": "mending"})
    if spec["name"] == "c-bad":
        raise ValueError("cannot be mended")
    return {"mended": spec["name"]}


GATE = System("gate", "3090", "", (BatchQueued,), 60.0, (Lane("gate", (BatchSubmitted,), find_counters, gate),))
MENDER = System("mender", "3090", "", (), 60.0, (Lane("mend", (BatchQueued,), find_gated, mend),))


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    ledger = Ledger(f"sqlite:///{tmp_path / 'ledger.db'}")
    migrate(ledger)
    yield ledger
    ledger.close()


def bus(ledger: Ledger, home: Path, *systems: System) -> InProcessBus:
    return InProcessBus(systems, Settings(home=home), ledger, ArtifactStore(f"file://{home}/artifacts"))


def add(ledger: Ledger, name: str, *events: Event) -> None:
    with ledger.write() as tx:
        tx.session.add(CounterRow(name=name, value=0))
        for event in events:
            tx.emit(event)


def verdicts(ledger: Ledger) -> set[tuple[str, str]]:
    with ledger.read() as session:
        return {(row.system, row.subject_id) for row in session.scalars(select(VerdictRow))}


def test_an_event_is_followed_to_the_end(ledger: Ledger, tmp_path: Path) -> None:
    turning = bus(ledger, tmp_path, GATE, MENDER)
    add(ledger, "c1", BatchSubmitted(batch_id="c1"))
    assert [event.name for event in turning.settle()] == ["batch.queued"]
    assert verdicts(ledger) == {("gate", "c1"), ("mender", "c1")}
    assert [event.name for event in turning.heard] == ["batch.submitted", "batch.queued"]
    assert turning.settle() == []


def test_a_sweep_finds_work_without_an_event(ledger: Ledger, tmp_path: Path) -> None:
    turning = bus(ledger, tmp_path, GATE, MENDER)
    add(ledger, "c1")
    assert turning.settle() == []
    turning.sweep()
    assert verdicts(ledger) == {("gate", "c1"), ("mender", "c1")}


def test_a_failing_child_is_a_failure_of_its_subject(ledger: Ledger, tmp_path: Path) -> None:
    turning = bus(ledger, tmp_path, GATE, MENDER)
    add(ledger, "c-bad", BatchSubmitted(batch_id="c-bad"))
    while True:
        turning.sweep()
        with ledger.read() as session:
            letters = session.scalars(select(DeadLetterRow)).all()
        if letters:
            break
    assert letters[0].error == f"{ChildFailed.__name__}: ValueError: cannot be mended"


def test_an_endless_cycle_of_events_is_stopped(ledger: Ledger, tmp_path: Path) -> None:
    ping = endless("ping", "pong", BatchSubmitted, BatchQueued, ahead=1)
    pong = endless("pong", "ping", BatchQueued, BatchSubmitted, ahead=0)
    turning = bus(ledger, tmp_path, ping, pong)
    turning.most_events = 10
    with pytest.raises(RuntimeError, match="drive each other in a circle"):
        turning.sweep()


def endless(name: str, other: str, hears: type[Event], says: type[Event], *, ahead: int) -> System:
    """A system with one more thing to do for each thing that the other has done."""

    def find(session: Session, _settings: Settings) -> Sequence[Subject]:
        done = select(func.count()).select_from(VerdictRow).where(VerdictRow.system == other)
        return [Subject("round", str(number)) for number in range(session.scalar(done) + ahead)]

    def do(work: Work) -> Outcome:
        return Verdict("done", "", events=(says(batch_id=work.subject.id),))

    return System(name, "3090", "", (says,), 60.0, (Lane(name, (hears,), find, do),))
