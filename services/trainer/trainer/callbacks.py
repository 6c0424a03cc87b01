"""Callbacks of every training step: seeding, the loss monitor, progress reports, stopping, and experiment trackers.

Each class is a callback of the Hugging Face Trainer, and depends on others only through its constructor.
"""

from __future__ import annotations

import hashlib
import math
import random
import time
from collections.abc import Callable, Sequence
from copy import copy
from typing import TYPE_CHECKING, Any

import torch
from ratchet.errors import Diverged, SettingsError
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.integrations import get_reporting_integration_callbacks

from trainer.batches import TokenCount
from trainer.distributed import Processes
from trainer.hardware import peak_memory_gb
from trainer.monitoring import RECENT_POINTS, Throughput, loss_spread, loss_trend

if TYPE_CHECKING:
    from trainer.run import SegmentPlan

Progress = Callable[[dict[str, Any]], None]
ShouldStop = Callable[[], bool]

_WORSE_THAN_GUESSING = 2.0

REPORT_INTERVAL_S = 1.0
"""Shortest time between two reports of progress, after that of the first step."""


class SeedPerStep(TrainerCallback):
    """Makes the randomness of a step (dropout) a function of seed, global step and rank alone."""

    def __init__(self, seed: int, first_step: int, rank: int = 0) -> None:
        self._key = f"{seed}:{rank}:"
        self._first_step = first_step

    def on_step_begin(self, _args: TrainingArguments, state: TrainerState, _control: TrainerControl, **_: Any) -> None:
        key = f"{self._key}{self._first_step + state.global_step}".encode()
        seed = int.from_bytes(hashlib.blake2b(key, digest_size=8).digest())
        torch.default_generator.manual_seed(seed)
        if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
            torch.cuda.manual_seed(seed)
        random.seed(seed)


class LossMonitor(TrainerCallback):
    """Records the loss curve. Raises Diverged for a loss that is not finite, or twice that of random guessing."""

    def __init__(self, first_step: int, vocabulary: int) -> None:
        self._first_step = first_step
        self._limit = _WORSE_THAN_GUESSING * math.log(vocabulary)
        self.curve: list[tuple[int, float]] = []
        self.learning_rate: float | None = None
        self.grad_norm: float | None = None

    def on_log(
        self,
        _args: TrainingArguments,
        state: TrainerState,
        _control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **_: Any,
    ) -> None:
        if not logs or "loss" not in logs:
            return
        step, loss = self._first_step + state.global_step, float(logs["loss"])
        if not math.isfinite(loss) or loss > self._limit:
            raise Diverged(
                f"step {step}: loss {loss:g}, while random guessing has {self._limit / _WORSE_THAN_GUESSING:.3g}; "
                "the batch may be bad, or hyperparams.learning_rate too high"
            )
        self.curve.append((step, loss))
        self.learning_rate = logs.get("learning_rate")
        self.grad_norm = logs.get("grad_norm")

    @property
    def loss(self) -> float | None:
        return self.curve[-1][1] if self.curve else None


class SkippedSteps(TrainerCallback):
    """Counts the steps that the fp16 scaler skips because a gradient overflowed.

    Such a step changes no weight and lowers the scale, from which it is detected. It is no sign of divergence; its rows
    count as trained, and the learning rate schedule continues.
    """

    def __init__(self, scaler: torch.amp.GradScaler | None) -> None:
        self._scaler = scaler
        self._scale = scaler.get_scale() if scaler is not None else 1.0
        self.count = 0

    def on_step_end(self, _args: TrainingArguments, _state: TrainerState, _control: TrainerControl, **_: Any) -> None:
        if self._scaler is not None:
            before, self._scale = self._scale, self._scaler.get_scale()
            self.count += self._scale < before


class StopCondition(TrainerCallback):
    """Ends the segment after a step, on time or on request, and logs the loss since the last point.

    All processes vote, so that all end after the same step.
    """

    def __init__(self, segment_max_s: float, should_stop: ShouldStop, processes: Processes) -> None:
        self._limit_s = segment_max_s
        self._should_stop = should_stop
        self._processes = processes
        self._begun_at = time.monotonic()
        self.reason: str | None = None

    def on_train_begin(
        self, _args: TrainingArguments, _state: TrainerState, _control: TrainerControl, **_: Any
    ) -> None:
        self._begun_at = time.monotonic()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if self._processes.any(self._should_stop(), args.device):
            self.reason = "stopped"
        elif self._processes.any(time.monotonic() - self._begun_at >= self._limit_s, args.device):
            self.reason = "time"
        if self.reason:
            control.should_training_stop = True
        if self.reason or state.global_step >= state.max_steps:
            control.should_log = True


class ProgressReporter(TrainerCallback):
    """Reports progress after the first step, then at most once every ``interval_s``.

    Within the first step it reports after each micro-batch how long the step will take, so that a stop can wait for it.
    """

    def __init__(
        self,
        report: Progress,
        plan: SegmentPlan,
        loss: LossMonitor,
        tokens: TokenCount,
        epochs: int,
        interval_s: float = REPORT_INTERVAL_S,
    ) -> None:
        """``epochs`` is the number of times the file's rows occur in the plan."""
        self._report = report
        self._plan = plan
        self._loss = loss
        self._tokens = tokens
        self._epochs = epochs
        self._interval_s = interval_s
        self._throughput = Throughput()
        self._reported_at = -math.inf
        self._micro_batches = 0
        self._begun_at = self._first_step_s = 0.0

    @property
    def elapsed_s(self) -> float:
        """Seconds from the beginning of training to the end of the last step."""
        return self._throughput.elapsed_s

    def on_train_begin(
        self, _args: TrainingArguments, _state: TrainerState, _control: TrainerControl, **_: Any
    ) -> None:
        self._throughput.begin(time.monotonic())
        self._begun_at = time.monotonic()

    def on_substep_end(self, args: TrainingArguments, state: TrainerState, _control: TrainerControl, **_: Any) -> None:
        if state.global_step > 0:
            return
        self._micro_batches += 1
        elapsed_s = time.monotonic() - self._begun_at
        self._first_step_s = elapsed_s / self._micro_batches * args.gradient_accumulation_steps
        self._report(self.snapshot(0))

    def on_step_end(self, _args: TrainingArguments, state: TrainerState, _control: TrainerControl, **_: Any) -> None:
        now = time.monotonic()
        self._throughput.step(now, self._tokens.tokens)
        if now - self._reported_at >= self._interval_s:
            self._reported_at = now
            self._report(self.snapshot(state.global_step))

    def snapshot(self, steps: int) -> dict[str, Any]:
        """Progress and loss after this many steps of the segment."""
        return {**self._position(steps), **self._learning(), "peak_memory_gb": peak_memory_gb()}

    def _position(self, steps: int) -> dict[str, Any]:
        plan, position = self._plan, self._plan.position_after(steps)
        examples_per_s = (position.offset - plan.offset) / self.elapsed_s if self.elapsed_s else 0.0
        left = position.rows - position.offset
        return {
            "step": plan.global_step + steps,
            "last_step": plan.global_step + plan.steps,
            "epoch": round(position.offset * self._epochs / position.rows, 2),
            "epochs": self._epochs,
            "examples_done": position.offset,
            "examples_total": position.rows,
            "examples_per_s": round(examples_per_s, 1),
            "remaining_s": round(left / examples_per_s, 1) if examples_per_s else None,
            "tokens_per_s": round(self._throughput.average, 1),
            "tokens_per_s_recent": round(self._throughput.recent, 1),
            "longest_step_s": round(self._throughput.longest_s or self._first_step_s, 3),
        }

    def _learning(self) -> dict[str, Any]:
        losses = [loss for _, loss in self._loss.curve]
        return {
            "loss": self._loss.loss,
            "loss_curve": self._loss.curve[-RECENT_POINTS:],
            "loss_trend": loss_trend(losses),
            "loss_spread": loss_spread(losses),
            "learning_rate": self._loss.learning_rate,
            "grad_norm": self._loss.grad_norm,
        }


WriteStatus = Callable[..., None]
"""Called with fields of the training status."""


class GuardedTracker(TrainerCallback):
    """A tracker that is disabled after its first failure, which is written to the status as ``tracker_error``."""

    def __init__(self, tracker: TrainerCallback, write_status: WriteStatus) -> None:
        self.tracker = tracker
        self.first_step = 0
        """Added to the segment's steps, so that curves continue those of the previous segment."""
        self._write_status = write_status
        self._has_failed = False

    def call(self, event: str, args: TrainingArguments, state: TrainerState, *rest: Any, **more: Any) -> Any:
        if self._has_failed:
            return None
        seen = copy(state)
        seen.global_step += self.first_step
        try:
            return getattr(self.tracker, event)(args, seen, *rest, **more)
        except Exception as error:  # noqa: BLE001 - a failing tracker must not stop training
            self._has_failed = True
            self._write_status(tracker_error=f"{type(self.tracker).__name__}.{event}: {type(error).__name__}: {error}")
            return None


def _passed_on(event: str) -> Callable[..., Any]:
    def method(self: GuardedTracker, *arguments: Any, **more: Any) -> Any:
        return self.call(event, *arguments, **more)

    return method


for _event in [name for name in vars(TrainerCallback) if name.startswith("on_")]:
    setattr(GuardedTracker, _event, _passed_on(_event))


def create_trackers(names: Sequence[str], write_status: WriteStatus) -> list[GuardedTracker]:
    """The callbacks of ``environment.report_to``. Raises SettingsError for an unknown name or a missing library."""
    trackers: list[GuardedTracker] = []
    for name in names:
        try:
            trackers += [
                GuardedTracker(tracker(), write_status) for tracker in get_reporting_integration_callbacks([name])
            ]
        except (ValueError, RuntimeError, ImportError) as error:
            raise SettingsError(f"environment.report_to {name!r}: {error}") from error
    return trackers
