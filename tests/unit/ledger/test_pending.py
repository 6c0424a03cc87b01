from __future__ import annotations

from ratchet.ledger import Ledger
from ratchet.ledger.pending import lacks_verdict, settled
from ratchet.ledger.tables import CounterRow
from sqlalchemy import select

from tests.support.rows import dead_letter, verdict


def fill(ledger: Ledger) -> None:
    with ledger.write() as tx:
        for name in ("decided", "dead", "retried", "elsewhere", "new"):
            tx.session.add(CounterRow(name=name, value=0))
        tx.session.add_all([verdict("mine", "toy", "decided", "done"), verdict("theirs", "toy", "elsewhere", "done")])
        letters = [dead_letter("mine", "toy", "dead"), dead_letter("mine", "toy", "retried", resolved_at=1.0)]
        tx.session.add_all([*letters, dead_letter("theirs", "toy", "elsewhere")])


def test_lacking_subjects_have_no_verdict_and_no_open_dead_letter(ledger: Ledger) -> None:
    fill(ledger)
    query = select(CounterRow.name).where(lacks_verdict("mine", "toy", CounterRow.name)).order_by(CounterRow.name)
    with ledger.read() as session:
        assert session.scalars(query).all() == ["elsewhere", "new", "retried"]


def test_the_kind_of_subject_matters(ledger: Ledger) -> None:
    fill(ledger)
    query = select(CounterRow.name).where(lacks_verdict("mine", "game", CounterRow.name))
    with ledger.read() as session:
        assert len(session.scalars(query).all()) == 5


def test_settled_subjects_are_all_others(ledger: Ledger) -> None:
    fill(ledger)
    pairs = [("toy", name) for name in ("decided", "dead", "retried", "elsewhere", "new")] + [("game", "decided")]
    with ledger.read() as session:
        assert settled(session, "mine", pairs) == {("toy", "decided"), ("toy", "dead")}


def test_any_number_of_subjects_can_be_asked_about(ledger: Ledger) -> None:
    fill(ledger)
    subjects = [("toy", str(number)) for number in range(33_000)]
    with ledger.read() as session:
        assert settled(session, "mine", subjects) == set()
