"""AdamW, and the learning rate as a pure function of the step, so that a resumed run continues with the same one."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
from ratchet.settings.training import HyperparamSettings
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

FLOOR = 0.1
"""Fraction of the peak learning rate at which a schedule ends; not zero, since the first steps of the next batch
should still learn."""

BETAS = (0.9, 0.95)
"""A faster decay of the second moment than PyTorch's 0.999 recovers sooner from a batch of a different kind."""

EPSILON = 1e-8

WARMUP_SHARE = 0.06
LONGEST_WARMUP = 20
"""Without ``hyperparams.warmup_steps``, this share of the first cycle's steps, at least one and at most so many: with a
short decay of the second moment, AdamW's estimates settle within that many steps, however long the run is."""


@dataclass(frozen=True)
class Cycle:
    """A planned range of steps, ``[start, start + length)``, for one period of the learning rate schedule.

    After an interruption, the rest of the cycle continues in the next segment.
    """

    start: int
    length: int

    @property
    def end(self) -> int:
        return self.start + self.length

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Schedule:
    """Warm-up after a fresh optimizer, then a constant rate, or one that decays to the floor over each cycle."""

    shape: str
    warmup_steps: int
    cycle: Cycle
    fresh_at: int
    """The global step at which the optimizer was fresh."""

    @classmethod
    def of(cls, hyperparams: HyperparamSettings, cycle: Cycle, fresh_at: int) -> Schedule:
        warmup_steps = hyperparams.warmup_steps
        if warmup_steps is None:
            warmup_steps = default_warmup(cycle.length) if cycle.start == fresh_at else 0
        return cls(shape=hyperparams.schedule, warmup_steps=warmup_steps, cycle=cycle, fresh_at=fresh_at)

    def factor(self, step: int) -> float:
        """Fraction of the peak learning rate at this global step; never zero."""
        return self._warmup(step) * self._shape(step)

    def _warmup(self, step: int) -> float:
        return min(1.0, (step - self.fresh_at + 1) / max(self.warmup_steps, 1))

    def _shape(self, step: int) -> float:
        done = min(max(step - self.cycle.start, 0) / max(self.cycle.length, 1), 1.0)
        if self.shape == "linear_per_segment":
            return 1.0 - (1.0 - FLOOR) * done
        if self.shape == "cosine_per_segment":
            return FLOOR + (1.0 - FLOOR) * (1.0 + math.cos(math.pi * done)) / 2.0
        return 1.0


def default_warmup(steps: int) -> int:
    """Steps of warm-up for a first cycle of so many steps."""
    return max(1, min(LONGEST_WARMUP, math.ceil(WARMUP_SHARE * steps)))


def build_optimizer(model: Any, hyperparams: HyperparamSettings) -> AdamW:
    """AdamW over the trainable weights, with weight decay on matrices only, not on norms and biases."""
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    matrices = [parameter for parameter in trainable if parameter.ndim >= 2]
    vectors = [parameter for parameter in trainable if parameter.ndim < 2]
    return AdamW(
        [
            {"params": matrices, "weight_decay": hyperparams.weight_decay},
            {"params": vectors, "weight_decay": 0.0},
        ],
        lr=hyperparams.learning_rate,
        betas=BETAS,
        eps=EPSILON,
        fused=True,
    )


def build_lr_scheduler(optimizer: torch.optim.Optimizer, schedule: Schedule, start: int) -> LambdaLR:
    """A scheduler from the global step ``start`` on. It has no state that needs saving."""
    return LambdaLR(optimizer, lambda steps: schedule.factor(start + steps))
