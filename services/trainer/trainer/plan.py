"""What one segment trains on: which rows, from which step, under which stretch of the schedule."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ratchet.errors import DataError, ResumeError, SettingsError
from ratchet.files import open_regular
from ratchet.settings.training import TrainerConfig

from trainer.dataset import TrainingRows
from trainer.order import Order, row_order
from trainer.schedule import Cycle, Schedule
from trainer.state import Position, TrainingState, load_order


@dataclass(frozen=True)
class SegmentPlan:
    """The rows of ``order[offset:]`` are left; this segment takes at most ``steps`` steps of ``group`` rows."""

    digest: str
    order: Order
    offset: int
    group: int
    steps: int
    global_step: int
    tokens: int
    schedule: Schedule

    @property
    def lines(self) -> Order:
        """Line numbers of the rows of this segment."""
        return self.order[self.offset : self.offset + self.steps * self.group]

    def position_after(self, steps: int) -> Position:
        """Where the file stands after so many steps of this segment."""
        offset = min(self.offset + steps * self.group, len(self.order))
        return Position(self.digest, offset, len(self.order))


def plan_segment(config: TrainerConfig, rows: TrainingRows, state: TrainingState | None, world: int = 1) -> SegmentPlan:
    """Go on with an unfinished file where its state stands; else begin at ``data.offset`` of its order.

    The order of an unfinished file comes from the state, so that no change of settings can repeat or lose a row.
    """
    hyperparams = config.hyperparams
    group = hyperparams.batch_size * hyperparams.gradient_accumulation * world
    digest = file_digest(config.data.dataset_path)
    unfinished = _unfinished(state, digest)
    if unfinished is not None and config.output.resume_from is not None:
        order = _rows_left(load_order(config.output.resume_from), unfinished.position.offset, rows)
        offset = unfinished.position.offset
        if config.data.offset not in (0, offset):
            raise ResumeError(f"data.offset is {config.data.offset}, but the state stands at {offset}")
    else:
        order, offset = _fresh_order(config, rows, group, digest), config.data.offset
    remaining = -(-(len(order) - offset) // group)
    if remaining <= 0:
        raise DataError(f"no row is left at data.offset {offset} of {len(order)}")
    at = state.global_step if state else config.output.first_step
    left = min(remaining, _steps_allowed(hyperparams.max_steps, at) or remaining)
    cycle = unfinished.cycle if unfinished and unfinished.cycle.end > at else None
    cycle = cycle or Cycle(at, min(left, hyperparams.segment_max_steps or left))
    return SegmentPlan(
        digest=digest,
        order=order,
        offset=offset,
        group=group,
        steps=min(left, cycle.end - at, hyperparams.save_steps or left),
        global_step=at,
        tokens=state.tokens if state else 0,
        schedule=Schedule.of(hyperparams, cycle, fresh_at=state.fresh_at if state else at),
    )


def _steps_allowed(max_steps: int | None, at: int) -> int | None:
    """Steps until ``hyperparams.max_steps``; None without one. Raises SettingsError where it is reached."""
    if max_steps is not None and at >= max_steps:
        raise SettingsError(f"hyperparams.max_steps is {max_steps}, and step {at} is reached already: raise it")
    return None if max_steps is None else max_steps - at


def file_digest(path: Path) -> str:
    """Hex sha256 of the file's bytes."""
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _unfinished(state: TrainingState | None, digest: str) -> TrainingState | None:
    if state is None or state.position.digest != digest or state.position.finished:
        return None
    return state


def _fresh_order(config: TrainerConfig, rows: TrainingRows, group: int, digest: str) -> Order:
    indices = row_order(
        rows.lengths,
        group=group,
        seed=config.data.seed,
        digest=digest,
        window=config.hyperparams.length_window,
        epochs=config.hyperparams.num_epochs,
        shuffle=config.data.shuffle,
    )
    return rows.lines[_affordable(indices, rows, config.data.max_tokens)]


def _affordable(indices: Order, rows: TrainingRows, max_tokens: int | None) -> Order:
    """The beginning of the order that has at most so many tokens."""
    if max_tokens is None:
        return indices
    return indices[np.cumsum(rows.lengths[indices], dtype=np.int64) <= max_tokens]


def _rows_left(order: Order, offset: int, rows: TrainingRows) -> Order:
    """The saved order without rows that became too long since."""
    kept = np.isin(order[offset:], rows.lines)
    return np.concatenate([order[:offset], order[offset:][kept]])
