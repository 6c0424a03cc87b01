"""Counts what was caught: the next system after catching."""

from __future__ import annotations

from collections.abc import Sequence

from ratchet.ledger.pending import lacks_verdict
from ratchet.ledger.tables import VerdictRow
from ratchet.settings import Settings
from ratchet.systems import Lane, Outcome, Subject, System, Verdict, Work
from sqlalchemy import select
from sqlalchemy.orm import Session, aliased

from tests.support.toys.catching import ToyCaught


def find(session: Session, _settings: Settings) -> Sequence[Subject]:
    before = aliased(VerdictRow)
    caught = (before.system == "catching") & lacks_verdict("counting", "toy", before.subject_id)
    return [Subject("toy", toy) for toy in session.scalars(select(before.subject_id).where(caught))]


def do(work: Work) -> Outcome:
    return Verdict("counted", "it was caught")


SYSTEM = System(
    name="counting",
    host="4090",
    purpose="Counts caught toys.",
    emits=(),
    sweep_s=3600.0,
    lanes=(Lane("count", consumes=(ToyCaught,), find=find, do=do),),
)
