"""The order in which rows are trained on: a pure function of seed, file and lengths, each row once an epoch."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Order = NDArray[np.int64]


def row_order(
    lengths: NDArray[np.int32],
    *,
    group: int,
    seed: int,
    digest: str,
    window: int = 1,
    epochs: int = 1,
    shuffle: bool = True,
) -> Order:
    """Row numbers in training order, every ``group`` of them one optimizer step.

    Rows are sorted by length within ``window`` steps. With 1 each step is a random sample of the rows, and only its own
    micro-batches are alike in length; with more there is less padding, but rows of a kind come together, which costs
    learning where kinds differ in length.

    ``digest`` (hex) names the file, so that two files with one seed are not shuffled alike. An incomplete group
    comes last, in each epoch.
    """
    if not shuffle:
        return np.tile(np.arange(len(lengths), dtype=np.int64), epochs)
    orders = [
        _one_epoch(lengths, group, window, np.random.default_rng([seed, int(digest[:16], 16), epoch]))
        for epoch in range(epochs)
    ]
    return np.concatenate(orders)


def _one_epoch(lengths: NDArray[np.int32], group: int, window: int, rng: np.random.Generator) -> Order:
    """Shuffle, sort by length within stretches of ``window`` groups, then shuffle the groups."""
    shuffled = rng.permutation(len(lengths)).astype(np.int64)
    whole = len(shuffled) - len(shuffled) % group
    body, rest = shuffled[:whole], shuffled[whole:]
    stretches = np.array_split(body.reshape(-1, group), max(1, round(whole / group / window)))
    sorted_groups = [_by_length(stretch.ravel(), lengths).reshape(-1, group) for stretch in stretches]
    groups = np.concatenate(sorted_groups)
    rng.shuffle(groups, axis=0)
    return np.concatenate([groups.ravel(), _by_length(rest, lengths)])


def _by_length(rows: Order, lengths: NDArray[np.int32]) -> Order:
    return rows[np.argsort(-lengths[rows], kind="stable")]


def micro_batches(rows: Order, *, batch_size: int, accumulation: int, rank: int = 0, world: int = 1) -> Iterator[Order]:
    """Cut rows into optimizer steps of ``batch_size * accumulation * world`` rows, and yield this rank's share.

    Every rank gets the same number of micro-batches; a share may be empty in the last step of the rows.
    """
    step = batch_size * accumulation * world
    for start in range(0, len(rows), step):
        group = rows[start : start + step]
        for micro in range(0, len(group), batch_size * world):
            yield group[micro + rank * batch_size : micro + (rank + 1) * batch_size]


def count_micro_batches(rows: int, *, batch_size: int, accumulation: int, world: int = 1) -> int:
    """How many micro-batches ``micro_batches`` yields."""
    step = batch_size * accumulation * world
    whole, rest = divmod(rows, step)
    return whole * accumulation + -(-rest // (batch_size * world))
