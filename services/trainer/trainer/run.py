"""One segment: its plan, the Trainer with its parts, and saving the result.

``plan_segment`` decides on the rows, the first step, and the part of the learning rate schedule. ``create_run``
restores a saved state or starts with a fresh optimizer. This module knows nothing of the ledger.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ratchet.errors import DataError, ResumeError, SettingsError
from ratchet.inference.chat_template import Tokenizer
from ratchet.inference.model_folder import weights_digest
from ratchet.settings.training import TrainerConfig
from ratchet.user_files import open_regular

from trainer.batches import BatchLoader, RowOrder, TokenCount, row_order
from trainer.callbacks import (
    LossMonitor,
    Progress,
    ProgressReporter,
    SeedPerStep,
    ShouldStop,
    SkippedSteps,
    StopCondition,
)
from trainer.checkpoint import (
    Gathered,
    Position,
    TrainingState,
    gather_all,
    load_order,
    load_state,
    replacing,
    restore_optimizer,
    save_master,
    save_moments,
    save_state,
    write_checkpoint,
)
from trainer.dataset import TrainingRows
from trainer.distributed import Processes
from trainer.hardware import Hardware
from trainer.loop import SegmentTrainer, build_trainer
from trainer.model import Trainable
from trainer.optimizer import Cycle, Schedule, build_lr_scheduler, build_optimizer
from trainer.segment import MODEL_FOLDER, STATE_FOLDER, TrainingResult, training_mode

NAMED_LINES = 20
"""Lines left out that a result names; it counts all of them."""


@dataclass(frozen=True)
class SegmentPlan:
    """The plan of a segment: at most ``steps`` steps, of ``step_rows`` rows each, from ``order[offset:]``."""

    digest: str
    order: RowOrder
    offset: int
    step_rows: int
    steps: int
    global_step: int
    tokens: int
    schedule: Schedule

    @property
    def lines(self) -> RowOrder:
        """Line numbers of this segment's rows."""
        return self.order[self.offset : self.offset + self.steps * self.step_rows]

    def position_after(self, steps: int) -> Position:
        """The position in the file after this many steps of the segment."""
        offset = min(self.offset + steps * self.step_rows, len(self.order))
        return Position(self.digest, offset, len(self.order))


def plan_segment(
    config: TrainerConfig, rows: TrainingRows, state: TrainingState | None, world_size: int = 1
) -> SegmentPlan:
    """Continue an unfinished file at the position in its state, or begin a new one at ``data.offset``.

    The order of an unfinished file comes from the state, so that no change of settings can repeat or skip a row.
    """
    hyperparams = config.hyperparams
    step_rows = hyperparams.batch_size * hyperparams.gradient_accumulation * world_size
    digest = file_digest(config.data.dataset_path)
    unfinished = _unfinished(state, digest)
    if unfinished is not None and config.output.resume_from is not None:
        order = _rows_left(load_order(config.output.resume_from), unfinished.position.offset, rows)
        offset = unfinished.position.offset
        if config.data.offset not in (0, offset):
            raise ResumeError(f"data.offset is {config.data.offset}, but the state is at {offset}")
    else:
        order, offset = _fresh_order(config, rows, step_rows, digest), config.data.offset
    remaining = -(-(len(order) - offset) // step_rows)
    if remaining <= 0:
        raise DataError(f"no row is left at data.offset {offset} of {len(order)}")
    step = state.global_step if state else config.output.first_step
    left = min(remaining, _steps_allowed(hyperparams.max_steps, step) or remaining)
    cycle = unfinished.cycle if unfinished and unfinished.cycle.end > step else None
    cycle = cycle or Cycle(step, left)
    return SegmentPlan(
        digest=digest,
        order=order,
        offset=offset,
        step_rows=step_rows,
        steps=min(left, cycle.end - step, hyperparams.save_steps or left),
        global_step=step,
        tokens=state.tokens if state else 0,
        schedule=Schedule.of(hyperparams, cycle, fresh_at=state.fresh_at if state else step),
    )


def _steps_allowed(max_steps: int | None, step: int) -> int | None:
    """Steps until ``hyperparams.max_steps``; None if that is unset. Raises SettingsError if it is reached."""
    if max_steps is not None and step >= max_steps:
        raise SettingsError(f"hyperparams.max_steps is {max_steps}, but training is at step {step} already: raise it")
    return None if max_steps is None else max_steps - step


def file_digest(path: Path) -> str:
    """Hex sha256 of the file's bytes."""
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _unfinished(state: TrainingState | None, digest: str) -> TrainingState | None:
    if state is None or state.position.digest != digest or state.position.finished:
        return None
    return state


def _fresh_order(config: TrainerConfig, rows: TrainingRows, step_rows: int, digest: str) -> RowOrder:
    indices = row_order(
        rows.lengths,
        step_rows=step_rows,
        seed=config.data.seed,
        digest=digest,
        epochs=config.hyperparams.num_epochs,
        shuffle=config.data.shuffle,
    )
    return rows.lines[indices]


def _rows_left(order: RowOrder, offset: int, rows: TrainingRows) -> RowOrder:
    """The saved order without rows that are now too long, for example after a change of hyperparams.max_length."""
    kept = np.isin(order[offset:], rows.lines)
    return np.concatenate([order[:offset], order[offset:][kept]])


@dataclass(frozen=True)
class Run:
    """A segment that is ready to train and to save."""

    config: TrainerConfig
    hardware: Hardware
    trainable: Trainable
    rows: TrainingRows
    plan: SegmentPlan
    trainer: SegmentTrainer
    loss: LossMonitor
    stop: StopCondition
    reporter: ProgressReporter
    tokens: TokenCount
    skipped: SkippedSteps

    @property
    def tokenizer(self) -> Tokenizer:
        return self.trainable.tokenizer

    def train(self) -> None:
        """Train until the segment's end. Raises Diverged, and any error of torch."""
        self.trainer.train()

    @property
    def steps(self) -> int:
        """Steps taken in this segment."""
        return int(self.trainer.state.global_step)

    def save(self) -> TrainingResult:
        """Write checkpoint and state to ``output.output_dir``. Must be called by every process; the main one writes."""
        folder, processes = self.config.output.output_dir, self.hardware.processes
        model = self.trainer.accelerator.unwrap_model(self.trainer.model)
        gathered = gather_all(model, self.trainable, self.trainer.optimizer, self.hardware)
        if processes.is_main:
            self._publish(folder / MODEL_FOLDER, folder / STATE_FOLDER, model, gathered)
        processes.barrier()
        state = load_state(folder / STATE_FOLDER)
        processes.barrier()  # before any process moves files that another still reads
        return TrainingResult(
            success=True,
            global_step=state.global_step,
            last_checkpoint_path=str(folder / MODEL_FOLDER),
            state_path=str(folder / STATE_FOLDER),
            final_loss=self.loss.loss or 0.0,
            finished=state.position.finished,
            summary=self._summary(state),
        )

    def _publish(self, model_folder: Path, state_folder: Path, model: Any, gathered: Gathered) -> None:
        """Write all large files first, then move the checkpoint into place, then the state, so that there is never a
        state without its checkpoint."""
        with replacing(state_folder) as draft:
            if self.trainable.saved_dtype != torch.float32 or self.trainable.adapters is not None:
                save_master(draft, gathered.trained)
            finished = self.plan.position_after(self.steps).finished
            save_moments(draft, gathered.moments, None if finished else self.plan.order)
            write_checkpoint(model_folder, model, self.trainable, gathered)
            save_state(draft, self._state(weights_digest(model_folder)))

    def _state(self, weights: str) -> TrainingState:
        scaler = self.trainer.accelerator.scaler
        return TrainingState(
            global_step=self.plan.global_step + self.steps,
            fresh_at=self.plan.schedule.fresh_at,
            tokens=self.plan.tokens + self.tokens.tokens,
            weights=weights,
            cycle=self.plan.schedule.cycle,
            position=self.plan.position_after(self.steps),
            scaler=scaler.state_dict() if scaler is not None else None,
            mode=training_mode(self.config.model),
            base_weights=self.trainable.base_weights,
        )

    def _summary(self, state: TrainingState) -> dict[str, Any]:
        seconds = self.reporter.elapsed_s
        return {
            "steps": self.steps,
            "offset": state.position.offset,
            "rows": state.position.rows,
            "rows_too_long": len(self.rows.too_long),
            "lines_too_long": list(self.rows.too_long[:NAMED_LINES]),
            "rows_refused": len(self.rows.refused),
            "lines_refused": dict(islice(self.rows.refused.items(), NAMED_LINES)),
            "tokens": self.tokens.tokens,
            "trained_tokens": self.tokens.trained,
            "padding_share": self.tokens.padding_share,
            "train_s": seconds,
            "tokens_per_s": self.tokens.tokens / seconds if seconds else 0.0,
            "loss_curve": self.loss.curve,
            "mean_loss": mean_loss(self.plan.global_step, self.loss.curve),
            "steps_skipped": self.skipped.count,
            "ended_by": self.stop.reason or ("rows" if state.position.finished else "steps"),
            "weights": state.weights,
            "dataset_digest": state.position.digest,
            "total_tokens": state.tokens,
            "batch_size": self.config.hyperparams.batch_size,
            "gradient_accumulation": self.config.hyperparams.gradient_accumulation,
            "processes": self.hardware.processes.world_size,
            "parallelism": "fsdp" if self.hardware.sharded else "ddp",
            "precision": self.hardware.precision,
            "device": self.hardware.device,
            "attention": self.trainable.attention,
            "profile": self.config.profile.name,
            "config": self.config.model_dump(mode="json"),
        }


def mean_loss(first_step: int, curve: list[tuple[int, float]]) -> float | None:
    """Mean over all steps of a curve whose points are means over the steps since the previous point."""
    points = [(first_step, 0.0), *curve]
    weighted = [(step - before) * loss for (before, _), (step, loss) in pairwise(points)]
    return sum(weighted) / (points[-1][0] - first_step) if curve else None


def create_run(
    config: TrainerConfig,
    hardware: Hardware,
    trainable: Trainable,
    rows: TrainingRows,
    state: TrainingState | None,
    report: Progress,
    should_stop: ShouldStop,
) -> Run:
    """Restore ``state``, or start with a fresh optimizer. The model is on its device already."""
    processes, model = hardware.processes, trainable.model
    plan = plan_segment(config, rows, state, processes.world_size)
    optimizer = build_optimizer(model, config.hyperparams)
    if config.output.resume_from is not None:
        restore_optimizer(config.output.resume_from, model, optimizer)
    tokens = TokenCount()
    loss = LossMonitor(plan.global_step, len(model.get_input_embeddings().weight))
    stop = StopCondition(config.hyperparams.segment_max_s, should_stop, processes)
    reporter = ProgressReporter(report, plan, loss, tokens, config.hyperparams.num_epochs)
    trainer = build_trainer(
        config,
        hardware,
        model,
        optimizer,
        build_lr_scheduler(optimizer, plan.schedule, plan.global_step),
        _loader(config, rows, plan, trainable, processes),
        tokens,
        [SeedPerStep(config.data.seed, plan.global_step, processes.rank), loss, stop, reporter],
    )
    if state is not None and state.scaler is not None and trainer.accelerator.scaler is not None:
        trainer.accelerator.scaler.load_state_dict(state.scaler)
    skipped = SkippedSteps(trainer.accelerator.scaler)
    trainer.add_callback(skipped)
    return Run(config, hardware, trainable, rows, plan, trainer, loss, stop, reporter, tokens, skipped)


def _loader(
    config: TrainerConfig, rows: TrainingRows, plan: SegmentPlan, trainable: Trainable, processes: Processes
) -> BatchLoader:
    tokenizer = trainable.tokenizer
    return BatchLoader(
        rows,
        plan.lines,
        batch_size=config.hyperparams.batch_size,
        accumulation=config.hyperparams.gradient_accumulation,
        pad_id=tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id,
        processes=processes,
        packed=trainable.supports_packing,
    )
