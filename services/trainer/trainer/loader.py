"""Rows, by line number, as micro-batches, in the shape that the Hugging Face Trainer iterates over."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from trainer.collator import MicroBatch, collate
from trainer.dataset import TrainingRows
from trainer.order import Order, count_micro_batches, micro_batches


@dataclass(frozen=True)
class BatchLoader:
    """Iterable over the micro-batches of this process; its length is exact."""

    dataset: TrainingRows
    lines: Order
    batch_size: int
    accumulation: int
    pad_id: int
    rank: int = 0
    world: int = 1

    def __len__(self) -> int:
        return count_micro_batches(
            len(self.lines), batch_size=self.batch_size, accumulation=self.accumulation, world=self.world
        )

    def __iter__(self) -> Iterator[MicroBatch]:
        shares = micro_batches(
            self.lines,
            batch_size=self.batch_size,
            accumulation=self.accumulation,
            rank=self.rank,
            world=self.world,
        )
        for share in shares:
            yield collate([self.dataset.by_line[line] for line in share.tolist()], self.pad_id)
