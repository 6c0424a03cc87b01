"""One segment in the making: the Trainer with all that it needs, and what becomes of its work."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from ratchet.inference.chat import Tokenizer
from ratchet.inference.digest import weights_digest
from ratchet.settings.training import TrainerConfig

from trainer.callbacks import (
    Deadline,
    LossWatch,
    Progress,
    ProgressReporter,
    ShouldStop,
    SkippedSteps,
    StepSeed,
)
from trainer.checkpoint import Gathered, gather_all, replacing, write_checkpoint
from trainer.dataset import TrainingRows
from trainer.form import form_of
from trainer.hardware import Hardware
from trainer.loader import BatchLoader, TokenCount
from trainer.loading import Trainable
from trainer.loop import SegmentTrainer, build_trainer
from trainer.optimizer import build_optimizer, follow
from trainer.plan import SegmentPlan, plan_segment
from trainer.processes import Processes
from trainer.result import MODEL_FOLDER, STATE_FOLDER, TrainingResult
from trainer.state import (
    TrainingState,
    load_state,
    restore_optimizer,
    save_master,
    save_moments,
    save_state,
)


@dataclass(frozen=True)
class Run:
    """A segment that is ready to train, and then to be saved."""

    config: TrainerConfig
    hardware: Hardware
    trainable: Trainable
    rows: TrainingRows
    plan: SegmentPlan
    trainer: SegmentTrainer
    watch: LossWatch
    deadline: Deadline
    reporter: ProgressReporter
    count: TokenCount
    skipped: SkippedSteps

    @property
    def tokenizer(self) -> Tokenizer:
        return self.trainable.tokenizer

    def train(self) -> None:
        """Train until the segment's end. Raises Diverged, and whatever torch raises."""
        self.trainer.train()

    @property
    def steps(self) -> int:
        """Steps taken in this segment."""
        return int(self.trainer.state.global_step)

    def save(self) -> TrainingResult:
        """Publish checkpoint and state under ``output.output_dir``; with several processes, the first one does."""
        folder, processes = self.config.output.output_dir, self.hardware.processes
        model = self.trainer.accelerator.unwrap_model(self.trainer.model)
        gathered = gather_all(model, self.trainable, self.trainer.optimizer, self.hardware)
        if processes.is_first:
            self._publish(folder / MODEL_FOLDER, folder / STATE_FOLDER, model, gathered)
        processes.wait()
        state = load_state(folder / STATE_FOLDER)
        processes.wait()  # nobody moves what another still reads
        return TrainingResult(
            success=True,
            global_step=state.global_step,
            last_checkpoint_path=str(folder / MODEL_FOLDER),
            state_path=str(folder / STATE_FOLDER),
            final_loss=self.watch.loss or 0.0,
            finished=state.position.finished,
            summary=self._summary(state),
        )

    def _publish(self, model_folder: Path, state_folder: Path, model: Any, gathered: Gathered) -> None:
        """The checkpoint first, once all that is large is written: a state without its checkpoint is never there."""
        with replacing(state_folder) as draft:
            if self.hardware.precision != "fp32" or self.trainable.adapters is not None:
                save_master(draft, gathered.trained)
            finished = self.plan.position_after(self.steps).finished
            save_moments(draft, gathered.moments, None if finished else self.plan.order)
            write_checkpoint(model_folder, model, self.trainable, self.hardware, gathered)
            save_state(draft, self._state(weights_digest(model_folder)))

    def _state(self, weights: str) -> TrainingState:
        scaler = self.trainer.accelerator.scaler
        return TrainingState(
            global_step=self.plan.global_step + self.steps,
            fresh_at=self.plan.schedule.fresh_at,
            tokens=self.plan.tokens + self.count.tokens,
            weights=weights,
            cycle=self.plan.schedule.cycle,
            position=self.plan.position_after(self.steps),
            scaler=scaler.state_dict() if scaler is not None else None,
            form=form_of(self.config.model),
            base=self.trainable.base,
        )

    def _summary(self, state: TrainingState) -> dict[str, Any]:
        seconds = self.reporter.elapsed_s
        return {
            "steps": self.steps,
            "offset": state.position.offset,
            "rows": state.position.rows,
            "rows_too_long": len(self.rows.too_long),
            "lines_too_long": list(self.rows.too_long[:20]),
            "tokens": self.count.tokens,
            "trained_tokens": self.count.trained,
            "padding_share": self.count.padding_share,
            "train_s": seconds,
            "tokens_per_s": self.count.tokens / seconds if seconds else 0.0,
            "loss_curve": self.watch.curve,
            "mean_loss": mean_loss(self.plan.global_step, self.watch.curve),
            "steps_skipped": self.skipped.count,
            "ended_by": self.deadline.reason or ("rows" if state.position.finished else "steps"),
            "weights": state.weights,
            "dataset_digest": state.position.digest,
            "total_tokens": state.tokens,
            "batch_size": self.config.hyperparams.batch_size,
            "gradient_accumulation": self.config.hyperparams.gradient_accumulation,
            "processes": self.hardware.processes.world,
            "parallelism": "fsdp" if self.hardware.sharded else "ddp",
            "precision": self.hardware.precision,
            "device": self.hardware.device,
            "attention": self.trainable.attention,
            "profile": self.config.profile.name,
            "config": self.config.model_dump(mode="json"),
        }


def mean_loss(first_step: int, curve: list[tuple[int, float]]) -> float | None:
    """Mean over all steps of a curve whose points are means over the steps since the point before."""
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
    """Put everything back where ``state`` left it, or start with a fresh optimizer. The model is in its place."""
    processes, model = hardware.processes, trainable.model
    plan = plan_segment(config, rows, state, processes.world)
    optimizer = build_optimizer(model, config.hyperparams)
    if config.output.resume_from is not None:
        restore_optimizer(config.output.resume_from, model, optimizer)
    count = TokenCount()
    watch = LossWatch(plan.global_step, len(model.get_input_embeddings().weight))
    deadline = Deadline(config.hyperparams.segment_max_s, should_stop, processes)
    reporter = ProgressReporter(
        report, plan, watch, count, config.hyperparams.num_epochs, config.monitoring.status_interval_s
    )
    trainer = build_trainer(
        config,
        hardware,
        model,
        optimizer,
        follow(optimizer, plan.schedule, plan.global_step),
        _loader(config, rows, plan, trainable, processes),
        count,
        [StepSeed(config.data.seed, plan.global_step, processes.rank), watch, deadline, reporter],
    )
    if state is not None and state.scaler is not None and trainer.accelerator.scaler is not None:
        trainer.accelerator.scaler.load_state_dict(state.scaler)
    skipped = SkippedSteps(trainer.accelerator.scaler)
    trainer.add_callback(skipped)
    return Run(config, hardware, trainable, rows, plan, trainer, watch, deadline, reporter, count, skipped)


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
        end_to_end=trainable.tells_rows_apart,
    )
