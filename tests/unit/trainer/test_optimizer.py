"""The optimizer takes its numbers from the settings, and the rate follows the schedule that they name."""

from __future__ import annotations

import pytest
import torch
from ratchet.settings.training import HyperparamSettings
from trainer.optimizer import build_optimizer, follow
from trainer.schedule import Cycle, Schedule


def test_every_number_of_adamw_is_a_setting() -> None:
    told = HyperparamSettings(learning_rate=1e-3, weight_decay=0.3, betas=(0.7, 0.8), epsilon=1e-5)
    matrices, vectors = build_optimizer(torch.nn.Linear(3, 2), told).param_groups
    assert (matrices["weight_decay"], vectors["weight_decay"]) == (0.3, 0.0)
    assert [group["lr"] for group in (matrices, vectors)] == [1e-3, 1e-3]
    assert [group["betas"] for group in (matrices, vectors)] == [(0.7, 0.8), (0.7, 0.8)]
    assert [group["eps"] for group in (matrices, vectors)] == [1e-5, 1e-5]


@pytest.mark.parametrize(
    ("schedule", "schedule_floor", "last"),
    [("constant", 0.5, 1.0), ("linear_per_segment", 0.5, 0.5), ("cosine_per_segment", 0.25, 0.25)],
)
def test_a_schedule_ends_at_its_floor(schedule: str, schedule_floor: float, last: float) -> None:
    told = HyperparamSettings.model_validate(
        {"learning_rate": 1e-3, "schedule": schedule, "schedule_floor": schedule_floor, "warmup_steps": 0}
    )
    optimizer = build_optimizer(torch.nn.Linear(3, 2), told)
    follow(optimizer, Schedule.of(told, Cycle(0, 10), fresh_at=0), start=10)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(last * 1e-3)
