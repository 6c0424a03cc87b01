"""Where the next segment begins: the line's head, or the frozen weights under its adapters, and the open batch."""

from __future__ import annotations

from dataclasses import dataclass

from ratchet.artifacts import ArtifactStore
from ratchet.events.catalogue import TrainingStarted
from ratchet.ledger import Transaction
from ratchet.ledger.lineage import adapter_base, head, lineage, unjudged
from ratchet.ledger.pending import lacks_verdict
from ratchet.ledger.tables import BatchRow, CheckpointRow, RegressionRow
from ratchet.settings import Settings
from ratchet.systems import Subject, Work
from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from trainer.form import FULL, facts_of_state, form_of

TRAINING = "training"


@dataclass(frozen=True)
class Start:
    """A segment's beginning, ``offset`` rows into its batch, and what speaks against beginning it.

    ``ground`` is the checkpoint whose weights are loaded: the head, or where adapters are gone on with, the one that
    they stand on. ``state`` is the state artifact to go on from; None for a fresh optimizer (and fresh adapters).
    ``save_s`` is what saving a checkpoint took last, in seconds.
    """

    head: CheckpointRow
    ground: CheckpointRow
    state: str | None
    batch: BatchRow
    offset: int
    objection: str | None
    save_s: float | None = None


@dataclass(frozen=True)
class Origin:
    """The checkpoint whose weights are loaded, and the state artifact that is put on them; None for a fresh start."""

    weights: CheckpointRow
    state: str | None


def open_segment(work: Work) -> Start:
    """Open the batch if it is not, and find out where to begin."""

    def open_batch(tx: Transaction) -> None:
        batch = tx.session.get_one(BatchRow, work.subject.id)
        if batch.state == "queued":
            batch.state, batch.started_at = "training", tx.now
            lineage(tx.session).running_batch_id = batch.id
            tx.emit(TrainingStarted(batch_id=batch.id))

    work.commit(open_batch)
    with work.read() as session:
        main = lineage(session)
        newest = head(session)
        base = adapter_base(session)
        batch = session.get_one(BatchRow, work.subject.id)
        offset = newest.offset if newest.batch_id == batch.id else 0
        objection = _objection(session, work.settings)
        saves = (
            select(CheckpointRow.save_s).where(CheckpointRow.save_s.is_not(None)).order_by(CheckpointRow.ordinal.desc())
        )
        save_s = session.scalar(saves.limit(1))
    found = origin(work.settings, work.artifacts, newest, base, fresh=main.fresh_optimizer)
    return Start(newest, found.weights, found.state, batch, offset, objection, save_s)


def rewinds(session: Session) -> list[Subject]:
    """Broken and badly regressed checkpoints that training has not answered yet."""
    bad = select(CheckpointRow.id).outerjoin(RegressionRow, RegressionRow.checkpoint_id == CheckpointRow.id)
    bad = bad.where(
        or_(CheckpointRow.state == "broken", RegressionRow.severity == "critical"),
        lacks_verdict(TRAINING, "checkpoint", CheckpointRow.id),
    )
    return [Subject("checkpoint", id) for id in session.scalars(bad)]


def all_steps_taken(session: Session, settings: Settings) -> bool:
    """Whether the line has come to ``hyperparams.max_steps``."""
    last = settings.hyperparams.max_steps
    return last is not None and head(session).step >= last


def origin(
    settings: Settings, artifacts: ArtifactStore, checkpoint: CheckpointRow, base: CheckpointRow | None, *, fresh: bool
) -> Origin:
    """What going on from the checkpoint loads. ``base`` is what the line's adapters stand on, where it has some.

    Where what is trained has changed, or the state does not fit, it is a fresh start from the checkpoint's own weights.
    Raises ArtifactError for a damaged state; the weights are not looked at.
    """
    form = form_of(settings.model)
    weights = checkpoint if form == FULL else base
    if fresh or checkpoint.state_artifact is None or weights is None or weights.state != "saved":
        return Origin(checkpoint, None)
    facts = facts_of_state(artifacts.fetch(checkpoint.state_artifact))
    if facts is None or (facts.form, facts.weights) != (form, weights.weights):
        return Origin(checkpoint, None)
    return Origin(weights, checkpoint.state_artifact)


def _objection(session: Session, settings: Settings) -> str | None:
    """What has to happen before the next segment; the batch stays open."""
    if lineage(session).paused:
        return "training to be resumed"
    if rewinds(session):
        return "a rewind that comes first"
    if all_steps_taken(session, settings):
        return f"more steps than hyperparams.max_steps {settings.hyperparams.max_steps} allows"
    waiting = unjudged(session)
    return f"judges: {waiting} checkpoints are not tested yet" if waiting >= settings.queue.unjudged_limit else None
