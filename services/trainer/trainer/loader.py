"""Rows, by line number, as micro-batches, in the shape that the Hugging Face Trainer iterates over."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from trainer.collator import MicroBatch, collate, lay_end_to_end
from trainer.dataset import TrainingRows
from trainer.order import Order, count_micro_batches, micro_batches
from trainer.processes import Processes


@dataclass(frozen=True, slots=True)
class StepSize:
    """What one optimizer step takes, over all processes."""

    tokens: int
    trained_tokens: int


@dataclass
class TokenCount:
    """Tokens of a segment so far: ``tokens`` and ``trained`` over all processes, the rest of this one."""

    tokens: int = 0
    trained: int = 0
    own: int = 0
    forwarded: int = 0
    """Through the model, padding included."""

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
    lines: Order
    batch_size: int
    accumulation: int
    pad_id: int
    processes: Processes
    end_to_end: bool = False
    """Lay the rows of a micro-batch end to end: for attention kernels that tell them apart by their places."""

    @property
    def group(self) -> int:
        """Rows of one optimizer step."""
        return self.batch_size * self.accumulation * self.processes.world

    def step(self, number: int) -> StepSize:
        """What the step of this number, from 0, takes: known to every process without asking the others."""
        lines = self.lines[number * self.group : (number + 1) * self.group].tolist()
        rows = [self.dataset.by_line[line] for line in lines]
        return StepSize(sum(len(row.ids) - 1 for row in rows), sum(row.trained_tokens for row in rows))

    def __len__(self) -> int:
        return count_micro_batches(
            len(self.lines), batch_size=self.batch_size, accumulation=self.accumulation, world=self.processes.world
        )

    def __iter__(self) -> Iterator[MicroBatch]:
        shares = micro_batches(
            self.lines,
            batch_size=self.batch_size,
            accumulation=self.accumulation,
            rank=self.processes.rank,
            world=self.processes.world,
        )
        for share in shares:
            rows = [self.dataset.by_line[line] for line in share.tolist()]
            yield lay_end_to_end(rows) if self.end_to_end else collate(rows, self.pad_id)
