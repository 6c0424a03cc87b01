"""Order, padding and packing of rows, and the share of each rank."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from trainer.batches import collate, count_micro_batches, micro_batches, row_order
from trainer.dataset import Row

DIGEST = "ab" * 32


def lengths(count: int, seed: int = 0) -> np.ndarray:
    """Mixed lengths: most rows short, some thirty times longer."""
    draw = np.random.default_rng(seed)
    return np.clip(draw.lognormal(4, 0.8, count), 8, 1000).astype(np.int32)


@pytest.mark.parametrize("count", [1, 7, 32, 33, 1000, 5001])
def test_each_row_comes_once(count: int) -> None:
    order = row_order(lengths(count), step_rows=32, seed=1, digest=DIGEST)
    assert sorted(order.tolist()) == list(range(count))


def test_each_epoch_has_each_row_once_in_another_order() -> None:
    order = row_order(lengths(100), step_rows=8, seed=1, digest=DIGEST, epochs=2)
    assert Counter(order.tolist()) == dict.fromkeys(range(100), 2)
    assert order[:100].tolist() != order[100:].tolist()


def test_the_order_depends_on_seed_and_file_alone() -> None:
    first = row_order(lengths(500), step_rows=8, seed=1, digest=DIGEST).tolist()
    assert first == row_order(lengths(500), step_rows=8, seed=1, digest=DIGEST).tolist()
    assert first != row_order(lengths(500), step_rows=8, seed=2, digest=DIGEST).tolist()
    assert first != row_order(lengths(500), step_rows=8, seed=1, digest="cd" * 32).tolist()


def test_without_shuffling_the_order_of_the_file_is_kept() -> None:
    assert row_order(lengths(5), step_rows=2, seed=1, digest=DIGEST, shuffle=False).tolist() == [0, 1, 2, 3, 4]


def test_micro_batches_of_a_step_have_similar_lengths() -> None:
    sizes = lengths(6400)
    rows = [Row(i, np.zeros(n, np.int32), np.arange(n) > n // 2) for i, n in enumerate(sizes.tolist())]

    def padding(batch_size: int, accumulation: int) -> float:
        order = row_order(sizes, step_rows=32, seed=1, digest=DIGEST)
        shares = micro_batches(order, batch_size=batch_size, accumulation=accumulation)
        batches = [collate([rows[i] for i in share], 0) for share in shares]
        assert sum(batch.tokens for batch in batches) == int((sizes - 1).sum())
        return 1 - sum(batch.tokens for batch in batches) / sum(batch.inputs.numel() for batch in batches)

    assert padding(2, 16) < 0.15 < padding(32, 1)


@pytest.mark.parametrize("rows", [1, 5, 16, 17, 40, 41])
@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_processes_share_every_step_without_overlap(rows: int, world_size: int) -> None:
    order = np.arange(rows, dtype=np.int64)
    shares = [
        list(micro_batches(order, batch_size=2, accumulation=4, rank=rank, world_size=world_size))
        for rank in range(world_size)
    ]
    expected = count_micro_batches(rows, batch_size=2, accumulation=4, world_size=world_size)
    assert [len(share) for share in shares] == [expected] * world_size
    seen = [row for share in shares for micro in share for row in micro.tolist()]
    assert sorted(seen) == list(range(rows))


def test_a_step_is_a_random_sample_sorted_by_length() -> None:
    sizes = np.repeat(np.array([10, 40], dtype=np.int32), 320)
    steps = row_order(sizes, step_rows=32, seed=1, digest=DIGEST).reshape(-1, 32)
    assert all(len(set(sizes[step].tolist())) == 2 for step in steps)
    assert all((np.diff(sizes[step]) <= 0).all() for step in steps)
