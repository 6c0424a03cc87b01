"""Trials of the curriculum experiment, read from the ledger: which arm taught a checkpoint, and what it gained.

What follows from trials is in bandit.py.
"""

from __future__ import annotations

from dataclasses import dataclass

from ratchet.artifacts import ArtifactStore
from ratchet.errors import NotComparable
from ratchet.evaluation.load_evaluation import load_if_intact
from ratchet.evaluation.paired_outcomes import outcome_table, total_of
from ratchet.ledger import Transaction
from ratchet.ledger.suites import current, evaluation
from ratchet.ledger.tables import BatchRow, CheckpointRow, EvaluationRow, TrialRow
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from datagen.bandit import RULES, Trial

WINDOW_HALF_LIVES = 6
"""Trials beyond this age, which would count for less than a sixtieth, are not read."""


@dataclass(frozen=True)
class Stretch:
    """Training between two checkpoints that were probed. ``arms`` are those of its batches; None where a batch was
    not drawn at random (a user's, a correction, one without an experiment)."""

    before: EvaluationRow
    after: EvaluationRow
    arms: frozenset[str | None]
    tokens: int
    checkpoints: tuple[str, ...]
    batches: tuple[str, ...]


def stretch(session: Session, checkpoint_id: str) -> Stretch | None:
    """From the nearest ancestor with a record on the probe suite; None if there is none."""
    suite = current(session, "probe").id
    after = evaluation(session, checkpoint_id, suite)
    row = session.get_one(CheckpointRow, checkpoint_id)
    arms: set[str | None] = set()
    tokens, between, batches = 0, list[str](), list[str]()
    while after is not None and row.parent_id is not None:
        parent = session.get_one(CheckpointRow, row.parent_id)
        arms.add(_arm(session, row.batch_id))
        tokens += tokens_between(parent, row)
        batches += [row.batch_id] if row.batch_id else []
        before = evaluation(session, parent.id, suite)
        if before is not None:
            return Stretch(
                before, after, frozenset(arms), tokens, tuple(between), tuple(dict.fromkeys(reversed(batches)))
            )
        between.append(parent.id)
        row = parent
    return None


def tokens_between(parent: CheckpointRow, row: CheckpointRow) -> int:
    """Tokens trained from one to the other. Where the parent left no state, the count started from 0 again."""
    return row.tokens - parent.tokens if row.tokens >= parent.tokens else row.tokens


def new_trial(session: Session, artifacts: ArtifactStore, checkpoint_id: str) -> TrialRow | None:
    """The trial that ends with this checkpoint, not yet in the ledger.

    None where the stretch is not one arm's, is or lies within a trial that is known, or its two records were made under
    different conditions, or cannot both be read.
    """
    if session.get(TrialRow, checkpoint_id) is not None:
        return None
    found = stretch(session, checkpoint_id)
    if found is None or len(found.arms) != 1 or None in found.arms or found.tokens <= 0:
        return None
    if _is_spanned(session, found.before.checkpoint_id, checkpoint_id):
        return None
    before, after = load_if_intact(artifacts, found.before), load_if_intact(artifacts, found.after)
    if before is None or after is None:
        return None
    try:
        outcomes = total_of(outcome_table(before, after))
    except NotComparable:
        return None
    if not outcomes.n:  # tasks measured by loss or by a judge have no grades
        return None
    return TrialRow(
        checkpoint_id=checkpoint_id,
        before_id=found.before.checkpoint_id,
        through={"checkpoints": list(found.checkpoints), "batches": list(found.batches)},
        arm=str(next(iter(found.arms))),
        tokens=found.tokens,
        items=outcomes.n,
        gains=outcomes.gains,
        losses=outcomes.losses,
    )


def record_trial(tx: Transaction, trial: TrialRow | None) -> None:
    """Add a new trial to the ledger, unless it is there already."""
    if trial is not None and tx.session.get(TrialRow, trial.checkpoint_id) is None:
        trial.created_at = tx.now
        tx.session.add(trial)


def read_trials(session: Session) -> list[Trial]:
    """The trials that still count, the oldest first."""
    newest = session.scalar(select(func.max(CheckpointRow.ordinal))) or 0
    oldest = newest - WINDOW_HALF_LIVES * RULES.half_life
    query = select(TrialRow, CheckpointRow.ordinal).join(CheckpointRow, CheckpointRow.id == TrialRow.checkpoint_id)
    query = query.where(CheckpointRow.ordinal >= oldest).order_by(CheckpointRow.ordinal)
    return [as_trial(row, newest - ordinal) for row, ordinal in session.execute(query)]


def as_trial(row: TrialRow, age: int) -> Trial:
    """The ledger's row as the value that the experiment works on."""
    return Trial(
        arm=row.arm,
        checkpoint_id=row.checkpoint_id,
        before_id=row.before_id,
        tokens=row.tokens,
        items=row.items,
        gains=row.gains,
        losses=row.losses,
        age=age,
    )


def _arm(session: Session, batch_id: str | None) -> str | None:
    batch = session.get(BatchRow, batch_id) if batch_id else None
    drawn = batch.provenance.get("assignment") if batch is not None and batch.origin == "generation" else None
    return str(drawn["arm"]) if drawn and drawn["probability"] < 1 else None


def _is_spanned(session: Session, before_id: str, checkpoint_id: str) -> bool:
    rows = session.scalars(select(TrialRow).where(TrialRow.before_id == before_id))
    return any(checkpoint_id in row.through["checkpoints"] for row in rows)
