"""Making a soup: read who goes in, average in a child, and enter the result as a checkpoint beside the line."""

from __future__ import annotations

from pathlib import Path

from ratchet.artifacts import weights_digest
from ratchet.events.catalogue import CheckpointSaved
from ratchet.ledger import Transaction
from ratchet.ledger.line import checkpoint_id, next_ordinal
from ratchet.ledger.tables import Checkpoint, Ranking
from ratchet.ledger.undecided import settled
from ratchet.settings import Settings
from ratchet.systems import Subject, Verdict, Work
from sqlalchemy import select
from sqlalchemy.orm import Session

from evaluator.soup import ingredients, parts, soup_name

SOUP = "soup"


def find_soup(session: Session, settings: Settings, system: str) -> list[Subject]:
    """The soup of the newest ranking, unless it was made before, or soups are switched off."""
    most = settings.comparison.soup_of
    newest = session.scalar(select(Ranking).order_by(Ranking.id.desc()).limit(1)) if most else None
    if newest is None:
        return []
    eligible = select(Checkpoint.id).where(
        Checkpoint.state == "saved", Checkpoint.soup_of.is_(None), Checkpoint.ordinal > 0
    )
    chosen = ingredients(newest.entries["entries"], set(session.scalars(eligible)), most)
    if not chosen or settled(session, system, [(SOUP, soup_name(chosen))]):
        return []
    return [Subject(SOUP, soup_name(chosen))]


def cook(work: Work) -> Verdict:
    """Average the ingredients. The soup is no part of the line: training goes on from its head as before."""
    with work.read() as session:
        rows = [session.get_one(Checkpoint, id) for id in parts(work.subject.id)]
    if any(row.state != "saved" for row in rows):
        return Verdict("dropped", "an ingredient is no longer there")
    newest = max(rows, key=lambda row: row.ordinal)
    ordered = [newest, *(row for row in rows if row is not newest)]
    into = Path(work.folder) / "soup"
    work.child(
        "evaluator.soup_child:average",
        {"folders": [str(work.artifacts.fetch(row.artifact)) for row in ordered], "into": str(into)},
    )
    artifact = work.artifacts.publish(into, "checkpoint", {"soup_of": parts(work.subject.id)}, consume=True)
    weights = weights_digest(artifact.manifest)

    def effects(tx: Transaction) -> None:
        ordinal = next_ordinal(tx.session)
        row = Checkpoint(
            id=checkpoint_id(ordinal, weights),
            ordinal=ordinal,
            parent_id=newest.id,
            batch_id=None,
            soup_of=work.subject.id,
            step=newest.step,
            tokens=newest.tokens,
            weights=weights,
            artifact=artifact.id,
            state_artifact=None,
            size_bytes=artifact.size_bytes,
            created_at=tx.now,
        )
        tx.session.add(row)
        tx.session.flush()
        tx.emit(CheckpointSaved(checkpoint_id=row.id, step=row.step))

    names = ", ".join(row.id for row in rows)
    return Verdict("cooked", f"averaged the weights of {names}", {"soup_of": [row.id for row in rows]}, effects)
