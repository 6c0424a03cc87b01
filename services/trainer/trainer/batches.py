"""The order of rows, and their micro-batches in the form that the Hugging Face Trainer iterates over.

``row_order`` is a pure function of seed, file and lengths, with each row once per epoch. A micro-batch is padded on the
right, or packed: rows are concatenated to one sequence, separated by their position ids.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from trainer.dataset import Row, TrainingRows
from trainer.distributed import Processes

RowOrder = NDArray[np.int64]


def row_order(
    lengths: NDArray[np.int32],
    *,
    step_rows: int,
    seed: int,
    digest: str,
    epochs: int = 1,
    shuffle: bool = True,
) -> RowOrder:
    """Row numbers in training order; every ``step_rows`` of them are one optimizer step.

    Each step is a random sample of the rows, sorted by length so that its micro-batches need little padding. ``digest``
    (hex) identifies the file, so that two files with the same seed are shuffled differently. The last step of each
    epoch may be incomplete.
    """
    if not shuffle:
        return np.tile(np.arange(len(lengths), dtype=np.int64), epochs)
    orders = [
        _one_epoch(lengths, step_rows, np.random.default_rng([seed, int(digest[:16], 16), epoch]))
        for epoch in range(epochs)
    ]
    return np.concatenate(orders)


def _one_epoch(lengths: NDArray[np.int32], step_rows: int, rng: np.random.Generator) -> RowOrder:
    shuffled = rng.permutation(len(lengths)).astype(np.int64)
    steps = [shuffled[first : first + step_rows] for first in range(0, len(shuffled), step_rows)]
    return np.concatenate([_by_length(step, lengths) for step in steps]) if steps else shuffled


def _by_length(rows: RowOrder, lengths: NDArray[np.int32]) -> RowOrder:
    return rows[np.argsort(-lengths[rows], kind="stable")]


def micro_batches(
    rows: RowOrder, *, batch_size: int, accumulation: int, rank: int = 0, world_size: int = 1
) -> Iterator[RowOrder]:
    """Cut rows into optimizer steps of ``batch_size * accumulation * world_size`` rows, and yield this rank's share.

    Every rank gets the same number of micro-batches; a share may be empty in the last step of the rows.
    """
    step_rows = batch_size * accumulation * world_size
    for first in range(0, len(rows), step_rows):
        step = rows[first : first + step_rows]
        for micro in range(0, len(step), batch_size * world_size):
            yield step[micro + rank * batch_size : micro + (rank + 1) * batch_size]


def count_micro_batches(rows: int, *, batch_size: int, accumulation: int, world_size: int = 1) -> int:
    """The number of micro-batches that ``micro_batches`` yields."""
    complete, rest = divmod(rows, batch_size * accumulation * world_size)
    return complete * accumulation + -(-rest // (batch_size * world_size))


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """One forward pass. Padding is on the right, where causal attention cannot see it, so there is no mask."""

    inputs: torch.Tensor
    """(rows, length) of token ids."""
    logits_to_keep: int
    """Logits are needed for this many last positions only; if packed, for ``target_positions`` only."""
    target_positions: torch.Tensor
    """Indices of the trained predictions in the flattened logits (rows * logits_to_keep)."""
    targets: torch.Tensor
    """The tokens to be predicted there."""
    tokens: int
    """Inputs without padding."""
    position_ids: torch.Tensor | None = None
    """(1, length), restarting at 0 with each row; None if the rows are not packed."""

    @property
    def trained_tokens(self) -> int:
        return len(self.targets)


def collate(rows: Sequence[Row], pad_id: int) -> MicroBatch:
    """The rows padded to one micro-batch; without rows, a single token that trains nothing."""
    length = max((len(row.ids) for row in rows), default=2) - 1
    inputs = np.full((max(len(rows), 1), length), pad_id, np.int64)
    following = np.zeros_like(inputs)
    trained = np.zeros(inputs.shape, np.bool_)
    for index, row in enumerate(rows):
        end = len(row.ids) - 1
        inputs[index, :end] = row.ids[:-1]
        following[index, :end] = row.ids[1:]
        trained[index, :end] = row.trained[1:]
    first = int(trained.any(axis=0).argmax())
    positions = np.flatnonzero(trained[:, first:])
    return MicroBatch(
        inputs=torch.from_numpy(inputs),
        logits_to_keep=length - first,
        target_positions=torch.from_numpy(positions),
        targets=torch.from_numpy(following[:, first:].ravel()[positions]),
        tokens=sum(len(row.ids) - 1 for row in rows),
    )


def pack(rows: Sequence[Row]) -> MicroBatch:
    """The rows concatenated to one sequence, without padding, for attention kernels that keep them separate."""
    if not rows:
        return collate(rows, 0)
    inputs = np.concatenate([row.ids[:-1] for row in rows]).astype(np.int64)
    following = np.concatenate([row.ids[1:] for row in rows]).astype(np.int64)
    trained = np.concatenate([row.trained[1:] for row in rows])
    position_ids = np.concatenate([np.arange(len(row.ids) - 1) for row in rows])
    positions = np.flatnonzero(trained)
    return MicroBatch(
        inputs=torch.from_numpy(inputs[None]),
        logits_to_keep=len(inputs),
        target_positions=torch.from_numpy(positions),
        targets=torch.from_numpy(following[positions]),
        tokens=len(inputs),
        position_ids=torch.from_numpy(position_ids[None]),
    )


@dataclass(frozen=True, slots=True)
class StepSize:
    """Tokens of one optimizer step, over all processes."""

    tokens: int
    trained_tokens: int


@dataclass
class TokenCount:
    """Tokens of a segment so far: ``tokens`` and ``trained`` over all processes, the others of this process."""

    tokens: int = 0
    trained: int = 0
    own: int = 0
    forwarded: int = 0
    """Tokens through the model, padding included."""

    def add(self, step: StepSize, own: Sequence[MicroBatch]) -> None:
        self.tokens += step.tokens
        self.trained += step.trained_tokens
        self.own += sum(batch.tokens for batch in own)
        self.forwarded += sum(batch.inputs.numel() for batch in own)

    @property
    def padding_share(self) -> float:
        return 1.0 - self.own / self.forwarded if self.forwarded else 0.0


@dataclass(frozen=True)
class BatchLoader:
    """Iterable over the micro-batches of this process; its length is exact."""

    dataset: TrainingRows
    lines: RowOrder
    batch_size: int
    accumulation: int
    pad_id: int
    processes: Processes
    packed: bool = False
    """Whether to pack the rows of a micro-batch; the model's attention has to support it."""

    @property
    def step_rows(self) -> int:
        """Rows of one optimizer step."""
        return self.batch_size * self.accumulation * self.processes.world_size

    def step(self, number: int) -> StepSize:
        """The size of step ``number``, counted from 0. Every process computes it without communication."""
        lines = self.lines[number * self.step_rows : (number + 1) * self.step_rows].tolist()
        rows = [self.dataset.by_line[line] for line in lines]
        return StepSize(sum(len(row.ids) - 1 for row in rows), sum(row.trained_tokens for row in rows))

    def __len__(self) -> int:
        return count_micro_batches(
            len(self.lines),
            batch_size=self.batch_size,
            accumulation=self.accumulation,
            world_size=self.processes.world_size,
        )

    def __iter__(self) -> Iterator[MicroBatch]:
        shares = micro_batches(
            self.lines,
            batch_size=self.batch_size,
            accumulation=self.accumulation,
            rank=self.processes.rank,
            world_size=self.processes.world_size,
        )
        for share in shares:
            rows = [self.dataset.by_line[line] for line in share.tolist()]
            yield pack(rows) if self.packed else collate(rows, self.pad_id)
