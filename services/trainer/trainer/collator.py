"""Rows to tensors, padded on the right or end to end, with the positions that the loss needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from trainer.dataset import Row


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """One forward pass. Padding stands to the right of a row, where causal attention cannot see it: no mask."""

    inputs: torch.Tensor
    """(rows, length) of token ids."""
    keep: int
    """Logits are needed of the last ``keep`` positions only, and in one line of ``positions`` only."""
    positions: torch.Tensor
    """Where in the (rows * keep) flattened logits a trained prediction stands."""
    targets: torch.Tensor
    """The tokens to be predicted there."""
    tokens: int
    """Inputs without padding."""
    places: torch.Tensor | None = None
    """(1, length) place of each token in its own row, where the rows lie end to end in one line."""

    @property
    def trained_tokens(self) -> int:
        return len(self.targets)


def collate(rows: Sequence[Row], pad_id: int) -> MicroBatch:
    """The rows as one micro-batch; without rows, one of a single token that trains nothing."""
    length = max((len(row.ids) for row in rows), default=2) - 1
    inputs = np.full((max(len(rows), 1), length), pad_id, np.int64)
    following = np.zeros_like(inputs)
    trained = np.zeros(inputs.shape, np.bool_)
    for index, row in enumerate(rows):
        here = len(row.ids) - 1
        inputs[index, :here] = row.ids[:-1]
        following[index, :here] = row.ids[1:]
        trained[index, :here] = row.trained[1:]
    first = int(trained.any(axis=0).argmax())
    positions = np.flatnonzero(trained[:, first:])
    return MicroBatch(
        inputs=torch.from_numpy(inputs),
        keep=length - first,
        positions=torch.from_numpy(positions),
        targets=torch.from_numpy(following[:, first:].ravel()[positions]),
        tokens=sum(len(row.ids) - 1 for row in rows),
    )


def lay_end_to_end(rows: Sequence[Row]) -> MicroBatch:
    """The rows in one line without padding. Their places, which begin anew with each, keep them from seeing another."""
    if not rows:
        return collate(rows, 0)
    inputs = np.concatenate([row.ids[:-1] for row in rows]).astype(np.int64)
    following = np.concatenate([row.ids[1:] for row in rows]).astype(np.int64)
    trained = np.concatenate([row.trained[1:] for row in rows])
    places = np.concatenate([np.arange(len(row.ids) - 1) for row in rows])
    positions = np.flatnonzero(trained)
    return MicroBatch(
        inputs=torch.from_numpy(inputs[None]),
        keep=len(inputs),
        positions=torch.from_numpy(positions),
        targets=torch.from_numpy(following[positions]),
        tokens=len(inputs),
        places=torch.from_numpy(places[None]),
    )
