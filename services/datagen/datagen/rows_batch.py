"""Composes a batch of rows that users have given: passes over the rows of their tasks, and replay against forgetting.

A pass gives each row of a task once, in an order of its own; a batch may hold several passes of a small task, or a part
of one of a large task, and the next batch goes on where it ended. This module decides which rows, by their places, and
does not read them; it does not know the ledger.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from random import Random
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict, Field

LEAST_STEPS = 24
"""Optimizer steps that a batch should have: with fewer, the learning rate is hardly up before it falls again."""

MOST_PASSES = 4
"""Most passes over a task in one batch, so that a checkpoint is measured before the model has learnt it by heart."""


class RowBudget(BaseModel):
    """How many rows a batch should have at least, for enough optimizer steps, and may have at most, replay included."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    least: int = Field(ge=1)
    most: int = Field(ge=1)

    @classmethod
    def of(cls, rows_per_step: int, epochs: int, most: int) -> RowBudget:
        """For a trainer that takes ``rows_per_step`` rows at once, and each row of a batch ``epochs`` times."""
        return cls(least=max(1, math.ceil(LEAST_STEPS * rows_per_step / epochs)), most=max(most, rows_per_step))


@dataclass(frozen=True)
class RowPool:
    """Rows that can be drawn, by their name. ``passes`` counts how often all of them have been in batches before."""

    name: str
    rows: int
    passes: float = 0.0


class Drawn(NamedTuple):
    """One row of a batch: its place in its pool, and the number of the pass from 1; 0 for replay."""

    pool: str
    place: int
    number: int


@dataclass(frozen=True)
class RowsPlan:
    """The rows of one batch in their order, and how many of each pool are taught, and replayed."""

    rows: tuple[Drawn, ...]
    taught: Mapping[str, int]
    replayed: Mapping[str, int]


def plan_rows(
    tasks: Sequence[RowPool], replay: Sequence[RowPool], budget: RowBudget, replay_share: float, seed: int
) -> RowsPlan:
    """The rows of a batch that teaches ``tasks``, with ``replay_share`` of it from the pools of ``replay``.

    Where all do not fit, each task gets a share by the square root of its rows. The same arguments give the same batch.
    """
    total = sum(task.rows for task in tasks)
    replay_share = replay_share if replay else 0.0
    passes = min(MOST_PASSES, max(1, math.ceil(budget.least * (1 - replay_share) / total)))
    wanted = {task.name: task.rows * passes for task in tasks}
    room = max(1, int(budget.most * (1 - replay_share)))
    taught = allot(wanted, {task.name: math.sqrt(task.rows) for task in tasks}, room)
    drawn = [each for task in tasks for each in _next_rows(task, taught[task.name])]
    more = round(len(drawn) * replay_share / (1 - replay_share))
    replayed = allot({pool.name: pool.rows for pool in replay}, {pool.name: 1.0 for pool in replay}, more)
    random = Random(f"{seed} rows")
    for pool in replay:
        drawn += [Drawn(pool.name, place, 0) for place in random.sample(range(pool.rows), replayed[pool.name])]
    random.shuffle(drawn)
    return RowsPlan(tuple(drawn), _some(taught), _some(replayed))


def allot(wanted: Mapping[str, int], weights: Mapping[str, float], room: int) -> dict[str, int]:
    """``room`` divided by the weights, none getting more than it wants: what one cannot use goes to the others."""
    given = dict.fromkeys(wanted, 0)
    left = min(room, sum(wanted.values()))
    while left > 0:
        hungry = [name for name in wanted if given[name] < wanted[name]]
        total = sum(weights[name] for name in hungry)
        parts = {name: int(left * weights[name] / total) for name in hungry}
        if not any(parts.values()):
            parts = {name: int(place < left) for place, name in enumerate(hungry)}
        for name, part in parts.items():
            part = min(part, wanted[name] - given[name])
            given[name] += part
            left -= part
    return given


def _next_rows(task: RowPool, count: int) -> Iterator[Drawn]:
    start = round(task.passes * task.rows)
    for position in range(start, start + count):
        number, place = divmod(position, task.rows)
        yield Drawn(task.name, _order(task.name, number, task.rows)[place], number + 1)


@lru_cache(maxsize=2)
def _order(name: str, number: int, rows: int) -> Sequence[int]:
    """The order of the rows in this pass."""
    places = list(range(rows))
    Random(f"{name} {number} pass").shuffle(places)
    return places


def _some(counts: Mapping[str, int]) -> dict[str, int]:
    return {name: count for name, count in counts.items() if count}
