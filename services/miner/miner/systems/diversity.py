"""Diversity analyzer: what each queued batch covers, against the mix it was to follow."""

from __future__ import annotations

from collections.abc import Iterator

from ratchet.data.example import Example
from ratchet.events.catalogue import BatchQueued, CoverageMeasured
from ratchet.ledger import Transaction
from ratchet.ledger.tables import Batch, Coverage
from ratchet.ledger.undecided import lacks_verdict
from ratchet.ledger.uses import item_uses
from ratchet.settings import Settings
from ratchet.systems import Lane, Outcome, Subject, System, Verdict, Work
from ratchet.tasks.graders import item_key
from sqlalchemy import select
from sqlalchemy.orm import Session

from miner.diversity import Level, measure

NAME = "diversity"
REPORT_EVERY = 1_000


def find(session: Session, _settings: Settings) -> list[Subject]:
    """Batches that have passed the gate, the newest first."""
    query = select(Batch.id).where(Batch.artifact.is_not(None), lacks_verdict(NAME, "batch", Batch.id))
    return [Subject("batch", id) for id in session.scalars(query.order_by(Batch.queued_at.desc()))]


def do(work: Work) -> Outcome:
    with work.read() as session:
        batch = session.get_one(Batch, work.subject.id)
        uses = item_uses(session)
    assert batch.artifact is not None, "found by it"
    found = measure(_rows(work, batch.artifact), _wanted(batch), uses)
    numbers = found.model_dump(mode="json")

    def effects(tx: Transaction) -> None:
        tx.session.add(Coverage(batch_id=batch.id, numbers=numbers, created_at=tx.now))

    reason = (
        f"{found.rows} rows, {found.distinct} different, {found.novelty:.0%} of them new; entropy {found.entropy:.2f}"
    )
    return Verdict("measured", reason, numbers, effects, (CoverageMeasured(batch_id=batch.id),))


def _rows(work: Work, artifact: str) -> Iterator[tuple[Example, str]]:
    for number, line in enumerate(work.artifacts.open_lines(artifact)):
        if number % REPORT_EVERY == 0:
            work.progress(f"{number} rows")
        example = Example.model_validate_json(line)
        yield example, item_key(example)


def _wanted(batch: Batch) -> dict[Level, float]:
    """The mix that a generated batch was asked for; none for other origins."""
    cells = ((name.rpartition("/"), weight) for name, weight in batch.provenance.get("mix", {}).items())
    return {(family, int(level)): float(weight) for (family, _, level), weight in cells}


SYSTEM = System(
    name=NAME,
    host="3090",
    purpose="Measures duplicates, coverage and novelty of every queued batch.",
    says=(CoverageMeasured,),
    sweep_s=600.0,
    lanes=(Lane("measure", (BatchQueued,), find, do),),
)
