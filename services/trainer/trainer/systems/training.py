"""Training: takes the next batch from the queue and trains the lineage's head on it, a bounded segment at a time.

Every segment is a child process (trainer.launch) that starts from the state saved by the previous one, so resuming
after a kill is no special case. After a broken or critically regressed checkpoint, training is rewound to the champion.
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
from ratchet.leases.gpus import training_processes
from ratchet.ledger import Transaction
from ratchet.ledger.deployments import champion
from ratchet.ledger.lineage import lineage, unjudged
from ratchet.ledger.live_training import status_for_claim
from ratchet.ledger.queue import low_mark, next_batch, shortage, skipped_midway, supply
from ratchet.ledger.tables import BatchRow, CheckpointRow, LineageRow
from ratchet.settings import Settings
from ratchet.settings.training import RunDataSettings, RunOutputSettings, TrainerConfig
from ratchet.systems import Lane, NotReady, Outcome, Subject, System, Verdict, Work
from sqlalchemy.orm import Session

from trainer.monitoring import STATUS_FILE
from trainer.planning import TRAINING, PauseFlag, SegmentStart, StopDeadline, all_steps_taken, open_segment, rewinds
from trainer.publish import publish, record
from trainer.recovery import descends_from, discard_state, recover, rewind
from trainer.retention import apply_retention, make_room, remove_old_history
from trainer.segment import ErrorKind, SegmentResult, SegmentSpec

NAME = TRAINING


def find(session: Session, settings: Settings) -> list[Subject]:
    """Checkpoints to rewind from and batches skipped midway come first, then the one batch that is open or next."""
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
    """Train segments until the batch is done. After a kill at most the current segment is repeated."""
    work.pulse.status = lambda: status_for_claim(work.settings)
    start = open_segment(work)
    while start.batch.state != "skipped" and start.batch.offset < start.batch.examples:
        if start.blocked_by is not None:
            return NotReady(start.blocked_by)
        make_room(work, start)
        deadline = StopDeadline(start.save_s, start.head.size_bytes)
        result = _segment(work, start, deadline)
        if not result.success:
            return _failed(work, start, result)
        saved = record(work, publish(work, start, result, deadline))
        work.pulse.stop_s, work.pulse.stop_note = 0.0, ""
        work.progress(f"saved {saved.id}")
        apply_retention(work)
        remove_old_history(work)
        if result.finished:
            break
        start = open_segment(work)
    return _finished(work)


def _segment(work: Work, start: SegmentStart, deadline: StopDeadline) -> SegmentResult:
    """Train one segment in a child process."""
    settings = work.settings
    spec = _spec(work, start)
    is_paused = PauseFlag(work, start.batch.id)

    def on_progress(message: dict[str, Any]) -> None:
        work.pulse.beat(_note(start, message))
        work.pulse.stop_s = deadline.update(message)
        work.pulse.stop_note = f"{_name(start.batch)}: {deadline.note}" if deadline.note else ""

    target = "trainer.launch:run_segment" if spec.ranks == 1 else "trainer.launch:launch_ranks"
    try:
        return SegmentResult.decode(work.child(target, spec.encode(), on_progress, is_paused, cards=spec.ranks))
    except ChildFailed as error:
        if error.out_of_memory:
            raise TrainingError(
                f"no memory for batch_size {settings.hyperparams.batch_size}: halve hyperparams.batch_size and double "
                "hyperparams.gradient_accumulation."
            ) from error
        raise


def _spec(work: Work, start: SegmentStart) -> SegmentSpec:
    settings = work.settings
    assert start.batch.artifact is not None, "a queued batch has passed the data gate"
    state = start.resume.state
    base = work.artifacts.fetch(start.resume.weights.artifact)
    config = TrainerConfig(
        model=settings.model.model_copy(update={"path": str(base), "tokenizer_path": None, "chat_template": None}),
        hyperparams=settings.hyperparams,
        profile=settings.profile,
        monitoring=settings.monitoring,
        locked=settings.locked.model_copy(update={"base_model": _base_name(settings, start.resume.weights)}),
        environment=settings.environment,
        data=RunDataSettings(
            dataset_path=work.artifacts.fetch(start.batch.artifact) / "rows.jsonl",
            offset=start.offset,
            seed=settings.data.seed,
            shuffle=settings.data.shuffle,
        ),
        output=RunOutputSettings(
            output_dir=work.folder / f"segment-{start.offset}",
            resume_from=work.artifacts.fetch(state) if state is not None else None,
            first_step=start.head.step,
        ),
    )
    return SegmentSpec(
        config=config,
        status_path=settings.status_folder / STATUS_FILE,
        ranks=training_processes(settings),
    )


def _base_name(settings: Settings, weights: CheckpointRow) -> str:
    """The name of the weights under new adapters: the user's for the base model, else the checkpoint's id."""
    return weights.id if weights.ordinal else settings.locked.base_model or settings.model.path


def _name(batch: BatchRow) -> str:
    return f"batch {batch.id[:8]}" + (f" of {batch.task}" if batch.task else "")


def _note(start: SegmentStart, message: dict[str, Any]) -> str:
    """``batch 1a2b3c4d of menus, epoch 2.3 of 8, step 12, loss 0.512, 213 tokens/s``."""
    parts = [_name(start.batch)]
    if "note" in message:
        return f"{parts[0]} {message['note']}"
    if message.get("epochs", 1) > 1:
        parts.append(f"epoch {message.get('epoch', 0):.1f} of {message['epochs']}")
    else:
        parts.append(f"{message.get('examples_done', 0):,} of {message.get('examples_total', 0):,} rows")
    saving = "saving " if message.get("state") == "saving" else ""
    parts.append(f"{saving}step {message.get('step', 0)}")
    if (loss := message.get("loss")) is not None:
        parts.append(f"loss {loss:.3f}")
    if speed := message.get("tokens_per_s"):
        parts.append(f"{speed:,.0f} tokens/s")
    return ", ".join(parts)


def _finished(work: Work) -> Verdict:
    """The verdict on a batch that is trained, or was skipped midway."""
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
        _emit_if_low(work, tx)

    done = batch.examples if outcome == "trained" else batch.offset
    finished = TrainingFinished(batch_id=batch.id, checkpoint_id=head_id)
    reason = f"{done} of {batch.examples} examples of {batch.origin}, up to checkpoint {head_id}"
    numbers = {"checkpoint": head_id, "origin": batch.origin, "offset": done}
    return Verdict(outcome, reason, numbers, effects, (finished,))


def _emit_if_low(work: Work, tx: Transaction) -> None:
    left, low_water = supply(tx.session), low_mark(work.settings)
    if shortage(left, low_water) is not None:
        tx.emit(QueueLow(depth=left.examples, low_water=low_water))


def _failed(work: Work, start: SegmentStart, result: SegmentResult) -> Outcome:
    """Handle a failed segment. Errors in the batch count against it, and a state that does not match is discarded.
    After errors in the machine, the settings or the configured model, the batch waits until they are fixed."""
    kind, message = result.error_kind, str(result.error_message)
    if kind is ErrorKind.TRANSIENT:
        raise TransientError(message)
    if kind in (ErrorKind.SETTINGS, ErrorKind.MODEL):
        raise SettingsError(f"{kind}: {message}")
    if kind is ErrorKind.RESUME:
        discard_state(work, message)
        return NotReady("an earlier state, from which training resumes")
    if kind in (ErrorKind.DATA, ErrorKind.TEMPLATE):
        raise DataError(f"{kind}: {message}")
    if kind is not ErrorKind.DIVERGED:
        raise TrainingError(f"{kind}: {message}")

    def effects(tx: Transaction) -> None:
        rewind(tx, start.batch.id)
        _emit_if_low(work, tx)

    event = TrainingFailed(batch_id=start.batch.id, reason=message)
    return Verdict("quarantined", f"the loss diverged: {message}", {"kind": str(kind)}, effects, (event,))


def _rewound(work: Work) -> Verdict:
    """Rewind to the champion, unless the bad checkpoint is no longer in the lineage of the head."""
    checkpoint_id = work.subject.id
    with work.ledger.write() as tx:
        concerned = descends_from(tx, lineage(tx.session).head_id, checkpoint_id)
        good = champion(tx.session)
    if not concerned or good.id == checkpoint_id:
        return Verdict("left behind", "the head of training does not descend from it")

    def effects(tx: Transaction) -> None:
        head_id, batch_ids = rewind(tx)
        for id in batch_ids:
            tx.emit(TrainingFailed(batch_id=id, reason=f"rewound to {head_id}"))
        _emit_if_low(work, tx)

    return Verdict("rewound", f"training resumes from the champion {good.id} with a fresh optimizer", {}, effects)


SYSTEM = System(
    name=NAME,
    host="4090",
    purpose="Trains a lineage of checkpoints on the queue, segment by segment, each from the exact state of the last.",
    emits=(TrainingStarted, CheckpointSaved, TrainingFinished, TrainingFailed, QueueLow),
    sweep_s=60.0,
    lanes=(
        Lane(
            "train",
            (BatchQueued, CheckpointRegressed, CheckpointBroken),
            find,
            do,
            step_s=300.0,
            check=recover,
        ),
    ),
    vram_gb=22,
    preload=("torch", "transformers", "accelerate", "trainer.launch", "trainer.core"),
    metrics="ratchet.metrics.training_status:TrainingCollector",
    order=1,
    pending="queued batches",
)
