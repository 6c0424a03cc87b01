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

from trainer.loader import TokenCount
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

    @property
    def loss(self) -> float | None:
        return self.curve[-1][1] if self.curve else None


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
    """Reports step, loss and speed, at most once an interval."""

    def __init__(
        self, report: Progress, plan: SegmentPlan, watch: LossWatch, count: TokenCount, interval_s: float
    ) -> None:
        self._report = report
        self._plan = plan
        self._watch = watch
        self._count = count
        self._interval_s = interval_s
        self._begun_at = self._reported_at = time.monotonic()
        self.elapsed_s = 0.0

    def on_train_begin(
        self, _args: TrainingArguments, _state: TrainerState, _control: TrainerControl, **_: Any
    ) -> None:
        self._begun_at = self._reported_at = time.monotonic()

    def on_step_end(self, _args: TrainingArguments, state: TrainerState, _control: TrainerControl, **_: Any) -> None:
        now = time.monotonic()
        self.elapsed_s = now - self._begun_at
        if now - self._reported_at >= self._interval_s:
            self._reported_at = now
            self._report(self.snapshot(state.global_step))

    def snapshot(self, steps: int) -> dict[str, Any]:
        """Where the run stands after so many steps of the segment."""
        position = self._plan.position_after(steps)
        return {
            "step": self._plan.global_step + steps,
            "loss": self._watch.loss,
            "tokens_per_s": round(self._count.tokens / self.elapsed_s, 1) if self.elapsed_s else 0.0,
            "examples_done": position.offset,
            "examples_total": position.rows,
        }
