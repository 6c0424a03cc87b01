"""AdamW and the learning rate that follows a schedule."""

from __future__ import annotations

from typing import Any

import torch
from ratchet.settings.training import HyperparamSettings
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

from trainer.schedule import Schedule


def build_optimizer(model: Any, hyperparams: HyperparamSettings) -> AdamW:
    """AdamW over the trainable weights; decay touches matrices only, not norms and biases."""
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    matrices = [parameter for parameter in trainable if parameter.ndim >= 2]
    vectors = [parameter for parameter in trainable if parameter.ndim < 2]
    return AdamW(
        [
            {"params": matrices, "weight_decay": hyperparams.weight_decay},
            {"params": vectors, "weight_decay": 0.0},
        ],
        lr=hyperparams.learning_rate,
        betas=hyperparams.betas,
        eps=hyperparams.epsilon,
        fused=True,
    )


def follow(optimizer: torch.optim.Optimizer, schedule: Schedule, start: int) -> LambdaLR:
    """Learning rates from the global step ``start`` on; the scheduler itself has no state worth keeping."""
    return LambdaLR(optimizer, lambda steps: schedule.factor(start + steps))
