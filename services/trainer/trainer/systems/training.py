"""Training: takes the next batch from the queue and trains the line's head on it, a bounded segment at a time.

Every segment is a child process that starts from the state the last one saved, so going on after a kill is the
ordinary way of going on. A checkpoint that proves broken or badly regressed sends the line back to the champion.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ratchet.errors import ChildFailed, SurroundingsError, TrainingError
from ratchet.events import Event
from ratchet.events.catalogue import (
    BatchQueued,
    CheckpointBroken,
    CheckpointRegressed,
    CheckpointSaved,
    QueueLow,
    TrainingFailed,
    TrainingFinished,
    TrainingStarted,
)
from ratchet.ledger import Transaction
from ratchet.ledger.line import champion, head, line, unjudged
from ratchet.ledger.queue import depth, next_batch
from ratchet.ledger.tables import Batch, Checkpoint, Line, Regression
from ratchet.ledger.undecided import lacks_verdict
from ratchet.settings import Settings
from ratchet.settings.reveal import reveal
from ratchet.systems import Lane, NotReady, Outcome, Subject, System, Verdict, Work
from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from trainer.cleaning import clean
from trainer.publish import publish, record
from trainer.rewind import descends_from, rewind

NAME = "training"
GIVE_UP = {"settings", "data", "template", "model", "resume", "unexpected"}
"""Kinds of failure that count against the batch; what the surroundings do does not."""


def find(session: Session, settings: Settings) -> list[Subject]:
    """Checkpoints to rewind from come first; then the one batch that is open or next."""
    main = session.get(Line, "main")
    if main is None or main.paused:
        return []
    rewinds = _rewinds(session)
    batch = next_batch(session)
    if batch is None or unjudged(session) >= settings.queue.unjudged_limit or _all_steps_taken(session, settings):
        return rewinds
    return [*rewinds, Subject("batch", batch.id)]


def _rewinds(session: Session) -> list[Subject]:
    """Broken and badly regressed checkpoints that training has not answered yet."""
    bad = select(Checkpoint.id).outerjoin(Regression, Regression.checkpoint_id == Checkpoint.id)
    bad = bad.where(
        or_(Checkpoint.state == "broken", Regression.severity == "critical"),
        lacks_verdict(NAME, "checkpoint", Checkpoint.id),
    )
    return [Subject("checkpoint", id) for id in session.scalars(bad)]


def do(work: Work) -> Outcome:
    return _rewound(work) if work.subject.kind == "checkpoint" else _trained(work)


@dataclass(frozen=True)
class Start:
    """Where a segment begins, ``offset`` rows into its batch, and what speaks against beginning it."""

    head: Checkpoint
    batch: Batch
    offset: int
    fresh: bool
    objection: str | None


def _trained(work: Work) -> Outcome:
    """Segments until the batch is done. A kill anywhere repeats at most the segment that was under way."""
    start = _start(work)
    while start.batch.offset < start.batch.examples:
        if start.objection is not None:
            return NotReady(start.objection)
        result = _segment(work, start)
        if not result["success"]:
            return _failed(work, start, result)
        saved = record(work, publish(work, start.head.id, start.batch.id, result))
        work.progress(f"saved {saved.id}")
        clean(work)
        if result["finished"]:
            break
        start = _start(work)
    return _finished(work)


def _start(work: Work) -> Start:
    def open_batch(tx: Transaction) -> None:
        batch = tx.session.get_one(Batch, work.subject.id)
        if batch.state == "queued":
            batch.state, batch.started_at = "training", tx.now
            line(tx.session).running_batch_id = batch.id
            tx.emit(TrainingStarted(batch_id=batch.id))

    work.commit(open_batch)
    with work.read() as session:
        main = line(session)
        return Start(
            session.get_one(Checkpoint, main.head_id),
            session.get_one(Batch, work.subject.id),
            _rows_seen(session, work.subject.id),
            main.fresh_optimizer,
            _objection(session, work.settings),
        )


def _rows_seen(session: Session, batch_id: str) -> int:
    """Rows of the batch in its newest checkpoint, over all epochs; a batch that was rewound is not trained again."""
    newest = select(Checkpoint.offset).where(Checkpoint.batch_id == batch_id).order_by(Checkpoint.ordinal.desc())
    return session.scalar(newest.limit(1)) or 0


def _all_steps_taken(session: Session, settings: Settings) -> bool:
    last = settings.hyperparams.max_steps
    return last is not None and head(session).step >= last


def _objection(session: Session, settings: Settings) -> str | None:
    """What has to happen before the next segment; the batch stays open."""
    if line(session).paused:
        return "training to be resumed"
    if _rewinds(session):
        return "a rewind that comes first"
    if _all_steps_taken(session, settings):
        return f"more steps than hyperparams.max_steps {settings.hyperparams.max_steps} allows"
    waiting = unjudged(session)
    return f"judges: {waiting} checkpoints are not tested yet" if waiting >= settings.queue.unjudged_limit else None


def _segment(work: Work, start: Start) -> dict[str, Any]:
    settings = work.settings
    assert start.batch.artifact is not None, "a queued batch has passed the gate"
    state = None if start.fresh else start.head.state_artifact
    model = settings.model.model_copy(update={"path": str(work.artifacts.fetch(start.head.artifact))})
    spec = {
        "model": model.model_dump(mode="json"),
        "hyperparams": settings.hyperparams.model_dump(mode="json"),
        "profile": settings.profile.model_dump(mode="json"),
        "locked": settings.locked.model_dump(mode="json"),
        "monitoring": reveal(settings.monitoring),
        "environment": settings.environment.model_dump(mode="json"),
        "data_path": str(work.artifacts.fetch(start.batch.artifact) / "rows.jsonl"),
        "output": str(work.folder / f"segment-{start.offset}"),
        "offset": start.offset,
        "seed": settings.data.seed,
        "shuffle": settings.data.shuffle,
        "state": str(work.artifacts.fetch(state)) if state else None,
        "global_step": start.head.step,
        "status_path": str(settings.status_folder / "training_status.json"),
    }
    try:
        return work.child("trainer.segment:run_segment", spec, lambda m: work.pulse.beat(_note(start, m)))
    except ChildFailed as error:
        if error.out_of_memory:
            raise TrainingError(
                f"no memory for batch_size {settings.hyperparams.batch_size}: halve hyperparams.batch_size and double "
                "hyperparams.gradient_accumulation."
            ) from error
        raise


def _note(start: Start, message: dict[str, Any]) -> str:
    loss, speed = message.get("loss"), message.get("tokens_per_s")
    return (
        f"batch {start.batch.id[:8]} {message.get('examples_done', 0)}/{message.get('examples_total', 0)} "
        f"step {message.get('step', 0)}"
        + (f" loss {loss:.3f}" if loss is not None else "")
        + (f" {speed:,.0f} tokens/s" if speed else "")
    )


def _finished(work: Work) -> Verdict:
    with work.read() as session:
        head_id = line(session).head_id
        batch = session.get_one(Batch, work.subject.id)

    def effects(tx: Transaction) -> None:
        row = tx.session.get_one(Batch, batch.id)
        row.state, row.finished_at, row.offset = "trained", tx.now, row.examples
        line(tx.session).running_batch_id = None
        tx.session.flush()
        _tell_of_depth(work, tx)

    finished = TrainingFinished(batch_id=batch.id, checkpoint_id=head_id)
    reason = f"{batch.examples} examples of {batch.origin}, up to checkpoint {head_id}"
    return Verdict("trained", reason, {"checkpoint": head_id, "origin": batch.origin}, effects, (finished,))


def _tell_of_depth(work: Work, tx: Transaction) -> None:
    total, low = depth(tx.session).total, work.settings.queue.low_water
    if total < low:
        tx.emit(QueueLow(depth=total, low_water=low))


def _failed(work: Work, start: Start, result: dict[str, Any]) -> Verdict:
    """A failure of the batch ends in quarantine; a failure of the machine is waited out."""
    kind, message = result["error_kind"], str(result["error_message"])
    if kind == "surroundings":
        raise SurroundingsError(message)
    if kind == "out_of_memory" or kind in GIVE_UP:
        raise TrainingError(f"{kind}: {message}")

    def effects(tx: Transaction) -> None:
        rewind(tx, start.batch.id)
        _tell_of_depth(work, tx)

    event = TrainingFailed(batch_id=start.batch.id, reason=message)
    return Verdict("quarantined", f"the loss diverged: {message}", {"kind": kind}, effects, (event,))


def _rewound(work: Work) -> Verdict:
    """Back to the champion, unless the line has left the bad checkpoint behind already."""
    checkpoint_id = work.subject.id
    with work.ledger.write() as tx:
        concerned = descends_from(tx, line(tx.session).head_id, checkpoint_id)
        good = champion(tx.session)
    if not concerned or good.id == checkpoint_id:
        return Verdict("left behind", "the line of training does not pass through it any more")
    events: list[Event] = []

    def effects(tx: Transaction) -> None:
        head_id, batch_ids = rewind(tx)
        events.extend(TrainingFailed(batch_id=id, reason=f"rewound to {head_id}") for id in batch_ids)
        for event in events:
            tx.emit(event)
        _tell_of_depth(work, tx)

    return Verdict("rewound", f"training goes on from the champion {good.id} with a fresh optimizer", {}, effects)


SYSTEM = System(
    name=NAME,
    host="4090",
    purpose="Trains the line of checkpoints on the queue, segment by segment, each from the exact state of the last.",
    says=(TrainingStarted, CheckpointSaved, TrainingFinished, TrainingFailed, QueueLow),
    sweep_s=60.0,
    lanes=(Lane("train", (BatchQueued, CheckpointRegressed, CheckpointBroken), find, do, step_s=300.0),),
    preload=("torch", "transformers", "accelerate", "trainer.segment"),
    metrics="ratchet.metrics.training:TrainingCollector",
)
