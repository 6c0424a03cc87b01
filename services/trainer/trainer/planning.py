"""What the worker trains next: the open batch, the position in it, and what has to happen first.

This module reads the ledger; it neither trains nor saves. ``PauseFlag`` and ``StopDeadline`` track a running segment.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

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

from trainer.segment import FULL, read_state_info, training_mode

TRAINING = "training"

MARGIN = 3.0
"""Factor on measured times, since a machine is busy while it stops, and rows differ in length."""

UNKNOWN_STEP_S = 120.0
"""The time that a stop allows for a step before the first micro-batch has shown how long one takes."""

SLOW_DISK_BYTES_PER_S = 50e6
FILES_S = 10.0
STATE_FACTOR = 7
"""Size of a checkpoint in 16 bits with its state (fp32 weights and two moments), as a multiple of the checkpoint's.
Used to estimate the time of a save, on a slow disk, before one was measured."""


@dataclass(frozen=True)
class ResumePoint:
    """The checkpoint whose weights are loaded, and the state artifact to resume from; None for a fresh optimizer.

    Exact resumption of adapters begins from the frozen weights under them. Without a state they may be a checkpoint of
    adapters itself: training continues those with a fresh optimizer, or merges them if others are to be trained.
    """

    weights: CheckpointRow
    state: str | None


@dataclass(frozen=True)
class SegmentStart:
    """Where a segment begins: after ``head``, at ``offset`` in its batch.

    ``blocked_by`` describes what has to happen first. ``save_s`` is the duration of the last save, in seconds.
    """

    head: CheckpointRow
    resume: ResumePoint
    batch: BatchRow
    offset: int
    blocked_by: str | None
    save_s: float | None = None


def open_segment(work: Work) -> SegmentStart:
    """Open the batch if it is queued, and find the position to begin at."""

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
        blocked_by = _blocked_by(session, work.settings)
        saves = (
            select(CheckpointRow.save_s).where(CheckpointRow.save_s.is_not(None)).order_by(CheckpointRow.ordinal.desc())
        )
        save_s = session.scalar(saves.limit(1))
    found = resume_point(work.settings, work.artifacts, newest, base, fresh=main.fresh_optimizer)
    return SegmentStart(newest, found, batch, offset, blocked_by, save_s)


def rewinds(session: Session) -> list[Subject]:
    """Broken and critically regressed checkpoints that have no verdict of training yet."""
    bad = select(CheckpointRow.id).outerjoin(RegressionRow, RegressionRow.checkpoint_id == CheckpointRow.id)
    bad = bad.where(
        or_(CheckpointRow.state == "broken", RegressionRow.severity == "critical"),
        lacks_verdict(TRAINING, "checkpoint", CheckpointRow.id),
    )
    return [Subject("checkpoint", id) for id in session.scalars(bad)]


def all_steps_taken(session: Session, settings: Settings) -> bool:
    """Whether the lineage has reached ``hyperparams.max_steps``."""
    last = settings.hyperparams.max_steps
    return last is not None and head(session).step >= last


def resume_point(
    settings: Settings, artifacts: ArtifactStore, checkpoint: CheckpointRow, base: CheckpointRow | None, *, fresh: bool
) -> ResumePoint:
    """What to load to continue from the checkpoint. ``base`` has the frozen weights under the lineage's adapters.

    If the training mode has changed, or the state does not fit, training continues on the checkpoint's own weights with
    a fresh optimizer. Raises ArtifactError for a damaged state; the weights are not checked.
    """
    mode = training_mode(settings.model)
    weights = checkpoint if mode == FULL else base
    if fresh or checkpoint.state_artifact is None or weights is None or weights.state != "saved":
        return ResumePoint(checkpoint, None)
    info = read_state_info(artifacts.fetch(checkpoint.state_artifact))
    if info is None or (info.mode, info.weights) != (mode, weights.weights):
        return ResumePoint(checkpoint, None)
    return ResumePoint(weights, checkpoint.state_artifact)


def _blocked_by(session: Session, settings: Settings) -> str | None:
    """What has to happen before the next segment, or None. The batch stays open."""
    if lineage(session).paused:
        return "training to be resumed"
    if rewinds(session):
        return "a pending rewind"
    if all_steps_taken(session, settings):
        return f"more steps than hyperparams.max_steps {settings.hyperparams.max_steps} allows"
    waiting = unjudged(session)
    return f"judges: {waiting} checkpoints are not tested yet" if waiting >= settings.queue.unjudged_limit else None


class PauseFlag:
    """Whether training is paused or the batch skipped, read from the ledger at most once every ``every_s``."""

    def __init__(self, work: Work, batch_id: str, every_s: float = 1.0) -> None:
        self._every_s = every_s
        self._work = work
        self._batch_id = batch_id
        self._read_at = time.monotonic()
        self._is_set = False

    def __call__(self) -> bool:
        """Whether the segment should stop. Once True, it stays True."""
        now = time.monotonic()
        if not self._is_set and now - self._read_at >= self._every_s:
            self._read_at = now
            with self._work.read() as session:
                batch = session.get_one(BatchRow, self._batch_id)
                self._is_set = lineage(session).paused or batch.state == "skipped"
        return self._is_set


@dataclass
class StopDeadline:
    """How long a segment may take to stop when its worker is asked to: the current step plus a save.

    This is a bound: a segment that finishes sooner ends sooner, and one that exceeds it counts as hung. ``save_s`` is
    the duration of the lineage's last save, None before the first.
    """

    save_s: float | None
    size_bytes: int
    saving_since: float | None = None
    _longest_step_s: float = 0.0
    _has_begun: bool = False

    def update(self, progress: Mapping[str, Any]) -> float:
        """Process a progress message; returns the bound in seconds, 0 until training has begun."""
        self._longest_step_s = max(self._longest_step_s, float(progress.get("longest_step_s") or 0.0))
        self._has_begun = self._has_begun or progress.get("state") in ("training", "saving")
        if progress.get("state") == "saving":
            self.saving_since = time.monotonic()
        if not self._has_begun:
            return 0.0
        step_s = MARGIN * self._longest_step_s if self._longest_step_s else UNKNOWN_STEP_S
        return step_s + MARGIN * self._longest_save_s

    @property
    def note(self) -> str:
        """What the segment does before it stops, for people; empty until training has begun."""
        if not self._has_begun:
            return ""
        save = f"saves the checkpoint, about {self._longest_save_s:.0f} s"
        if self.saving_since is not None:
            return save
        about = f" of about {self._longest_step_s:.0f} s" if self._longest_step_s else ""
        return f"finishes a step{about}, then {save}"

    @property
    def saved_s(self) -> float | None:
        """Seconds since saving began; once everything is published, the duration of the save."""
        return None if self.saving_since is None else time.monotonic() - self.saving_since

    @property
    def _longest_save_s(self) -> float:
        if self.save_s is not None:
            return self.save_s
        return FILES_S + STATE_FACTOR * self.size_bytes / SLOW_DISK_BYTES_PER_S
