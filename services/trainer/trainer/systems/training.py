"""Training: takes the next batch from the queue and trains the line's head on it, a bounded segment at a time.

Every segment is a child process, or several ranks under one (trainer.launch), that start from the state the last one
saved, so going on after a kill is the ordinary way of going on. A checkpoint that proves broken or badly regressed
sends the line back to the champion.
"""

from __future__ import annotations

from typing import Any

from ratchet.errors import ChildFailed, DataError, SettingsError, TrainingError, TransientError
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
from ratchet.leases.share import training_processes
from ratchet.ledger import Transaction
from ratchet.ledger.deployments import champion
from ratchet.ledger.lineage import lineage, unjudged
from ratchet.ledger.queue import next_batch, shortage, skipped_midway, supply
from ratchet.ledger.tables import BatchRow, LineageRow
from ratchet.settings import Settings
from ratchet.settings.section import reveal
from ratchet.systems import Lane, NotReady, Outcome, Subject, System, Verdict, Work
from sqlalchemy.orm import Session

from trainer.brake import Brake
from trainer.cleaning import clean
from trainer.grace import Grace
from trainer.publish import publish, record
from trainer.recovery import check, set_state_aside
from trainer.rewind import descends_from, rewind
from trainer.start import TRAINING, Start, all_steps_taken, open_segment, rewinds

NAME = TRAINING


def find(session: Session, settings: Settings) -> list[Subject]:
    """Checkpoints to rewind from and batches left midway come first; then the one batch that is open or next."""
    main = session.get(LineageRow, "main")
    if main is None or main.paused:
        return []
    first = [*rewinds(session), *(Subject("batch", batch.id) for batch in skipped_midway(session))]
    batch = next_batch(session)
    if batch is None or unjudged(session) >= settings.queue.unjudged_limit or all_steps_taken(session, settings):
        return first
    return [*first, Subject("batch", batch.id)]


def do(work: Work) -> Outcome:
    return _rewound(work) if work.subject.kind == "checkpoint" else _trained(work)


def _trained(work: Work) -> Outcome:
    """Segments until the batch is done. A kill anywhere repeats at most the segment that was under way."""
    start = open_segment(work)
    while start.batch.state != "skipped" and start.batch.offset < start.batch.examples:
        if start.objection is not None:
            return NotReady(start.objection)
        grace = Grace(start.save_s, start.head.size_bytes)
        result = _segment(work, start, grace)
        if not result["success"]:
            return _failed(work, start, result)
        saved = record(work, publish(work, start, result, grace))
        work.pulse.stop_s = 0.0
        work.progress(f"saved {saved.id}")
        clean(work)
        if result["finished"]:
            break
        start = open_segment(work)
    return _finished(work)


def _segment(work: Work, start: Start, grace: Grace) -> dict[str, Any]:
    settings = work.settings
    assert start.batch.artifact is not None, "a queued batch has passed the gate"
    state = work.artifacts.fetch(start.state) if start.state else None
    model = settings.model.model_copy(update={"path": str(work.artifacts.fetch(start.ground.artifact))})
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
        "state": str(state) if state else None,
        "global_step": start.head.step,
        "status_path": str(settings.status_folder / "training_status.json"),
    }
    brake = Brake(work, start.batch.id, settings.monitoring.status_interval_s)

    def hear(message: dict[str, Any]) -> None:
        work.pulse.beat(_note(start, message))
        work.pulse.stop_s = grace.hear(message)

    ranks = training_processes(settings)
    target = "trainer.segment:run_segment" if ranks == 1 else "trainer.launch:launch_ranks"
    try:
        return work.child(target, {**spec, "ranks": ranks}, hear, brake, cards=ranks)
    except ChildFailed as error:
        if error.out_of_memory:
            raise TrainingError(
                f"no memory for batch_size {settings.hyperparams.batch_size}: halve hyperparams.batch_size and double "
                "hyperparams.gradient_accumulation."
            ) from error
        raise


def _note(start: Start, message: dict[str, Any]) -> str:
    if "note" in message:
        return f"batch {start.batch.id[:8]} {message['note']}"
    loss, speed = message.get("loss"), message.get("tokens_per_s")
    return (
        f"batch {start.batch.id[:8]} {message.get('examples_done', 0)}/{message.get('examples_total', 0)} "
        f"{'saving ' if message.get('state') == 'saving' else ''}step {message.get('step', 0)}"
        + (f" loss {loss:.3f}" if loss is not None else "")
        + (f" {speed:,.0f} tokens/s" if speed else "")
    )


def _finished(work: Work) -> Verdict:
    """The batch is trained, or was skipped on the way, at its offset."""
    with work.read() as session:
        head_id = lineage(session).head_id
        batch = session.get_one(BatchRow, work.subject.id)
    outcome = "skipped" if batch.state == "skipped" else "trained"

    def effects(tx: Transaction) -> None:
        row = tx.session.get_one(BatchRow, batch.id)
        if outcome == "trained":
            row.state, row.finished_at, row.offset = "trained", tx.now, row.examples
        lineage(tx.session).running_batch_id = None
        tx.session.flush()
        _tell_of_depth(work, tx)

    done = batch.examples if outcome == "trained" else batch.offset
    finished = TrainingFinished(batch_id=batch.id, checkpoint_id=head_id)
    reason = f"{done} of {batch.examples} examples of {batch.origin}, up to checkpoint {head_id}"
    numbers = {"checkpoint": head_id, "origin": batch.origin, "offset": done}
    return Verdict(outcome, reason, numbers, effects, (finished,))


def _tell_of_depth(work: Work, tx: Transaction) -> None:
    left, queue = supply(tx.session), work.settings.queue
    if shortage(left, queue) is not None:
        tx.emit(QueueLow(depth=left.examples, low_water=queue.low_water))


def _failed(work: Work, start: Start, result: dict[str, Any]) -> Outcome:
    """What is wrong with the batch counts against it. A state that does not fit is left behind; what is wrong with the
    machine, the settings or the model that they name is waited out."""
    kind, message = result["error_kind"], str(result["error_message"])
    if kind == "surroundings":
        raise TransientError(message)
    if kind in ("settings", "model"):
        raise SettingsError(f"{kind}: {message}")
    if kind == "resume":
        set_state_aside(work, message)
        return NotReady("its turn, since training goes on from an earlier state")
    if kind in ("data", "template"):
        raise DataError(f"{kind}: {message}")
    if kind in ("out_of_memory", "unexpected"):
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
        concerned = descends_from(tx, lineage(tx.session).head_id, checkpoint_id)
        good = champion(tx.session)
    if not concerned or good.id == checkpoint_id:
        return Verdict("left behind", "the line of training does not pass through it any more")

    def effects(tx: Transaction) -> None:
        head_id, batch_ids = rewind(tx)
        for id in batch_ids:
            tx.emit(TrainingFailed(batch_id=id, reason=f"rewound to {head_id}"))
        _tell_of_depth(work, tx)

    return Verdict("rewound", f"training goes on from the champion {good.id} with a fresh optimizer", {}, effects)


SYSTEM = System(
    name=NAME,
    host="4090",
    purpose="Trains the line of checkpoints on the queue, segment by segment, each from the exact state of the last.",
    emits=(TrainingStarted, CheckpointSaved, TrainingFinished, TrainingFailed, QueueLow),
    sweep_s=60.0,
    lanes=(
        Lane(
            "train",
            (BatchQueued, CheckpointRegressed, CheckpointBroken),
            find,
            do,
            step_s=300.0,
            check=check,
        ),
    ),
    preload=("torch", "transformers", "accelerate", "trainer.segment", "trainer.launch"),
    metrics="ratchet.metrics.training:TrainingCollector",
    order=1,
    pending="queued batches",
)
