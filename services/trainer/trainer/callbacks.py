"""What happens at every step: seeding, watching the loss, reporting, and stopping in good order."""

from __future__ import annotations

import hashlib
import math
import random
import time
from collections.abc import Callable
from typing import Any

import torch
from ratchet.errors import Diverged
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from trainer.curve import RECENT, spread, trend
from trainer.hardware import peak_memory_gb
from trainer.loader import TokenCount
from trainer.pace import Pace
from trainer.plan import SegmentPlan
from trainer.processes import Processes

Progress = Callable[[dict[str, Any]], None]
ShouldStop = Callable[[], bool]

_WORSE_THAN_GUESSING = 2.0


class StepSeed(TrainerCallback):
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


class LossWatch(TrainerCallback):
    """Keeps the loss curve, and raises Diverged for a loss that is not finite or twice that of guessing."""

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
                f"step {step}: loss {loss:g}, where guessing has {self._limit / _WORSE_THAN_GUESSING:.3g}; "
                "the batch is suspect, or hyperparams.learning_rate too high"
            )
        self.curve.append((step, loss))
        self.learning_rate = logs.get("learning_rate")
        self.grad_norm = logs.get("grad_norm")

    @property
    def loss(self) -> float | None:
        return self.curve[-1][1] if self.curve else None


class SkippedSteps(TrainerCallback):
    """Counts the steps that the fp16 scaler skips, because a gradient was not finite in 16 bits.

    Such a step changes no weight and lowers the scale, by which it is known. It is no sign of divergence; its rows
    count as seen, and the learning rate goes on with the steps.
    """

    def __init__(self, scaler: torch.amp.GradScaler | None) -> None:
        self._scaler = scaler
        self._scale = scaler.get_scale() if scaler is not None else 1.0
        self.count = 0

    def on_step_end(self, _args: TrainingArguments, _state: TrainerState, _control: TrainerControl, **_: Any) -> None:
        if self._scaler is not None:
            before, self._scale = self._scale, self._scaler.get_scale()
            self.count += self._scale < before


class Deadline(TrainerCallback):
    """Ends the segment after a step, on time or on request, with the last stretch of the loss logged."""

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
    """Reports where the run stands and how it goes, at most once an interval."""

    def __init__(
        self, report: Progress, plan: SegmentPlan, watch: LossWatch, count: TokenCount, epochs: int, interval_s: float
    ) -> None:
        """``epochs`` is how often the file's rows are in the plan."""
        self._report = report
        self._plan = plan
        self._watch = watch
        self._count = count
        self._epochs = epochs
        self._interval_s = interval_s
        self._pace = Pace()
        self._reported_at = 0.0

    @property
    def elapsed_s(self) -> float:
        """Seconds from the first step to the end of the last."""
        return self._pace.elapsed_s

    def on_train_begin(
        self, _args: TrainingArguments, _state: TrainerState, _control: TrainerControl, **_: Any
    ) -> None:
        self._reported_at = time.monotonic()
        self._pace.begin(self._reported_at)

    def on_step_end(self, _args: TrainingArguments, state: TrainerState, _control: TrainerControl, **_: Any) -> None:
        now = time.monotonic()
        self._pace.step(now, self._count.tokens)
        if now - self._reported_at >= self._interval_s:
            self._reported_at = now
            self._report(self.snapshot(state.global_step))

    def snapshot(self, steps: int) -> dict[str, Any]:
        """Where the run stands after so many steps of the segment."""
        return {**self._place(steps), **self._learning(), "peak_memory_gb": peak_memory_gb()}

    def _place(self, steps: int) -> dict[str, Any]:
        plan, position = self._plan, self._plan.position_after(steps)
        examples_per_s = (position.offset - plan.offset) / self.elapsed_s if self.elapsed_s else 0.0
        left = position.rows - position.offset
        return {
            "step": plan.global_step + steps,
            "last_step": plan.global_step + plan.steps,
            "epoch": min(self._epochs, position.offset * self._epochs // position.rows + 1),
            "examples_done": position.offset,
            "examples_total": position.rows,
            "examples_per_s": round(examples_per_s, 1),
            "remaining_s": round(left / examples_per_s, 1) if examples_per_s else None,
            "tokens_per_s": round(self._pace.average, 1),
            "tokens_per_s_recent": round(self._pace.recent, 1),
            "longest_step_s": round(self._pace.longest_s, 3),
        }

    def _learning(self) -> dict[str, Any]:
        losses = [loss for _, loss in self._watch.curve]
        return {
            "loss": self._watch.loss,
            "loss_curve": self._watch.curve[-RECENT:],
            "loss_trend": trend(losses),
            "loss_spread": spread(losses),
            "learning_rate": self._watch.learning_rate,
            "grad_norm": self._watch.grad_norm,
        }
