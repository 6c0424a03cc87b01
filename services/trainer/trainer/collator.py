"""Rows to tensors: padded on the right, shifted, with the logits that the loss needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from trainer.dataset import Row

IGNORED = -100


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """One forward pass.

    ``inputs`` is (rows, length) of token ids. ``targets`` is (rows, keep): the tokens to be predicted at the last
    ``keep`` positions, IGNORED where the prediction does not count. Padding stands to the right of a row, where causal
    attention cannot see it, so there is no attention mask.
    """

    inputs: torch.Tensor
    targets: torch.Tensor
    tokens: int
    """Inputs without padding."""
    trained_tokens: int

    @property
    def keep(self) -> int:
        return self.targets.shape[1]


def collate(rows: Sequence[Row], pad_id: int) -> MicroBatch:
    """The rows as one micro-batch; without rows, one of a single token that trains nothing."""
    length = max((len(row.ids) for row in rows), default=2) - 1
    inputs = np.full((max(len(rows), 1), length), pad_id, np.int64)
    targets = np.full_like(inputs, IGNORED)
    for index, row in enumerate(rows):
        here = len(row.ids) - 1
        inputs[index, :here] = row.ids[:-1]
        targets[index, :here] = np.where(row.trained[1:], row.ids[1:], IGNORED)
    counted = targets != IGNORED
    first = int(counted.any(axis=0).argmax())
    return MicroBatch(
        inputs=torch.from_numpy(inputs),
        targets=torch.from_numpy(np.ascontiguousarray(targets[:, first:])),
        tokens=sum(len(row.ids) - 1 for row in rows),
        trained_tokens=int(counted.sum()),
    )
