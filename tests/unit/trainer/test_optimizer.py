"""The optimizer takes its numbers from the settings, and the learning rate is a function of the step."""

from __future__ import annotations

import pytest
import torch
from ratchet.settings.training import HyperparamSettings
from trainer.optimizer import Cycle, Schedule, build_lr_scheduler, build_optimizer, default_warmup


def test_learning_rate_and_decay_follow_the_settings() -> None:
    hyperparams = HyperparamSettings(learning_rate=1e-3, weight_decay=0.3)
    matrices, vectors = build_optimizer(torch.nn.Linear(3, 2), hyperparams).param_groups
    assert (matrices["weight_decay"], vectors["weight_decay"]) == (0.3, 0.0)
    assert [group["lr"] for group in (matrices, vectors)] == [1e-3, 1e-3]


@pytest.mark.parametrize(
    ("schedule", "last"), [("constant", 1.0), ("linear_per_segment", 0.1), ("cosine_per_segment", 0.1)]
)
def test_a_schedule_ends_at_its_floor(schedule: str, last: float) -> None:
    hyperparams = HyperparamSettings.model_validate({"learning_rate": 1e-3, "schedule": schedule, "warmup_steps": 0})
    optimizer = build_optimizer(torch.nn.Linear(3, 2), hyperparams)
    build_lr_scheduler(optimizer, Schedule.of(hyperparams, Cycle(0, 10), fresh_at=0), start=10)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(last * 1e-3)


def make(shape: str, **changes: object) -> Schedule:
    fields = {"warmup_steps": 0, "cycle": Cycle(100, 50), "fresh_at": 0, **changes}
    return Schedule(shape=shape, **fields)  # type: ignore[arg-type]


def test_warm_up_counts_from_the_fresh_optimizer_only() -> None:
    warming = make("constant", warmup_steps=4, fresh_at=10)
    assert [warming.factor(step) for step in (10, 11, 12, 13, 14, 500)] == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]


@pytest.mark.parametrize(("steps", "expected"), [(1, 1), (3, 1), (40, 3), (375, 20), (100_000, 20)])
def test_without_a_setting_the_warm_up_is_a_share_of_the_planned_steps(steps: int, expected: int) -> None:
    assert default_warmup(steps) == expected
    schedule = Schedule.of(HyperparamSettings(schedule="constant"), Cycle(7, steps), fresh_at=7)
    factors = [schedule.factor(7 + step) for step in range(steps)]
    assert factors[0] == pytest.approx(1 / expected)
    assert factors[-1] == 1.0, "even three steps reach the peak"


def test_only_the_cycle_after_a_fresh_optimizer_warms_up() -> None:
    later = Schedule.of(HyperparamSettings(schedule="constant"), Cycle(3, 400), fresh_at=0)
    assert later.factor(3) == 1.0


@pytest.mark.parametrize("shape", ["linear_per_segment", "cosine_per_segment"])
def test_a_cycle_falls_from_the_peak_to_the_floor_and_never_below(shape: str) -> None:
    factors = [make(shape).factor(step) for step in range(100, 151)]
    assert factors[0] == 1.0
    assert factors == sorted(factors, reverse=True)
    assert factors[-1] == pytest.approx(0.1)
    assert make(shape).factor(10_000) == pytest.approx(0.1)
    assert make(shape).factor(125) == pytest.approx(0.55)


def test_nothing_decays_across_cycles() -> None:
    for start in (0, 1_000, 1_000_000):
        assert make("cosine_per_segment", cycle=Cycle(start, 50)).factor(start) == 1.0
