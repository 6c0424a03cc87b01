"""The number of steps of a segment: to the end of the file, the cycle, the next save, or `max_steps`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ratchet.errors import SettingsError
from trainer.checkpoint import TrainingState
from trainer.config import create_default_config
from trainer.dataset import Row, TrainingRows
from trainer.run import SegmentPlan, plan_segment

ROWS, STEP = 100, 10


@pytest.fixture
def rows() -> TrainingRows:
    ids = np.arange(5, dtype=np.int32)
    return TrainingRows(tuple(Row(line, ids, ids > 2) for line in range(1, ROWS + 1)), ())


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "rows.jsonl"
    file.write_text("rows\n")
    return file


def plan(file: Path, rows: TrainingRows, state: TrainingState | None = None, **hyperparams: Any) -> SegmentPlan:
    overrides = {f"hyperparams.{name}": value for name, value in {"batch_size": STEP, **hyperparams}.items()}
    return plan_segment(create_default_config(file, file.parent, overrides=overrides), rows, state)


def after(begun: SegmentPlan) -> TrainingState:
    """The state when the segment has taken its steps."""
    return TrainingState(
        global_step=begun.global_step + begun.steps,
        fresh_at=begun.schedule.fresh_at,
        tokens=0,
        weights="",
        cycle=begun.schedule.cycle,
        position=begun.position_after(begun.steps),
    )


def test_without_a_bound_a_segment_takes_the_whole_file(file: Path, rows: TrainingRows) -> None:
    whole = plan(file, rows)
    assert (whole.steps, whole.schedule.cycle.length) == (10, 10)


def test_a_segment_saves_after_save_steps_and_the_schedule_continues(file: Path, rows: TrainingRows) -> None:
    first = plan(file, rows, save_steps=4)
    assert (first.steps, first.schedule.cycle.length) == (4, 10)


def test_a_cycle_outlives_a_segment(file: Path, rows: TrainingRows) -> None:
    first = plan(file, rows, save_steps=4)
    second = plan(file, rows, after(first), save_steps=4)
    assert (second.schedule.cycle, second.steps) == (first.schedule.cycle, 4)


def test_training_ends_at_max_steps_for_any_num_epochs(file: Path, rows: TrainingRows) -> None:
    short = plan(file, rows, max_steps=7, num_epochs=5)
    assert (short.steps, short.schedule.cycle.length) == (7, 7)


def test_max_steps_counts_from_the_base_model(file: Path, rows: TrainingRows) -> None:
    first = after(plan(file, rows, max_steps=12))
    assert plan(file, rows, first, max_steps=12).steps == 2
    with pytest.raises(SettingsError, match=r"max_steps is 10, but training is at step 10 already: raise it"):
        plan(file, rows, first, max_steps=10)


def planned(file: Path, rows: TrainingRows, name: str, value: Any) -> SegmentPlan:
    """With one more setting than the batch size."""
    overrides = {"hyperparams.batch_size": STEP, name: value}
    return plan_segment(create_default_config(file, file.parent, overrides=overrides), rows, None)


@pytest.mark.parametrize(
    ("name", "value", "steps"),
    [
        ("hyperparams.batch_size", 20, 5),
        ("hyperparams.gradient_accumulation", 4, 3),
        ("hyperparams.num_epochs", 3, 30),
        ("hyperparams.max_steps", 6, 6),
        ("hyperparams.save_steps", 4, 4),
        ("data.offset", 35, 7),
    ],
)
def test_the_number_of_steps_follows_the_settings(
    file: Path, rows: TrainingRows, name: str, value: int, steps: int
) -> None:
    assert planned(file, rows, name, value).steps == steps


def test_offset_and_start_step_follow_the_settings(file: Path, rows: TrainingRows) -> None:
    assert planned(file, rows, "data.offset", 35).offset == 35
    assert planned(file, rows, "output.first_step", 500).global_step == 500


def test_the_order_of_rows_follows_the_settings(file: Path, rows: TrainingRows) -> None:
    usual = plan(file, rows).order.tolist()
    assert planned(file, rows, "data.shuffle", False).order.tolist() == sorted(usual) != usual
    assert planned(file, rows, "data.seed", 7).order.tolist() != usual


@pytest.mark.parametrize(
    ("changed", "factors"),
    [
        ({}, [1.0, 0.55]),
        ({"warmup_steps": 10}, [0.1, 0.6 * 0.55]),
        ({"schedule": "constant"}, [1.0, 1.0]),
    ],
    ids=["plain", "warmup_steps", "schedule"],
)
def test_the_schedule_follows_the_settings(
    file: Path, rows: TrainingRows, changed: dict[str, Any], factors: list[float]
) -> None:
    found = plan(file, rows, **{"warmup_steps": 0, **changed}).schedule
    assert [found.factor(0), found.factor(5)] == pytest.approx(factors)
