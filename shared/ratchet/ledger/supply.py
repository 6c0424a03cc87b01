"""How much there is left to train on, in examples, tokens and minutes, and whether that is too little."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from ratchet.ledger.queue import TRAINER, depth
from ratchet.ledger.tables import BatchRow, CheckpointRow
from ratchet.ledger.undecided import lacks_verdict
from ratchet.settings.queue import QueueSettings

RECENT = 5
"""Segments whose speed is looked at; the median of them counts."""


@dataclass(frozen=True)
class Supply:
    """What waits for training. ``tokens`` as the gate counts them; what is before the gate is put at the mean length of
    what has passed it. ``tokens_per_s`` is None before the first segment."""

    examples: int
    tokens: int
    tokens_per_s: float | None

    def with_more(self, examples: int) -> Supply:
        """With so many examples more, as long as these are."""
        length = self.tokens / self.examples if self.examples else 0.0
        return Supply(self.examples + examples, self.tokens + round(examples * length), self.tokens_per_s)

    @property
    def minutes(self) -> float | None:
        """Minutes of training left at the measured speed."""
        return self.tokens / self.tokens_per_s / 60 if self.tokens_per_s else None


def supply(session: Session) -> Supply:
    """Of the main line."""
    waiting = depth(session)
    counted = _waiting_tokens(session)
    return Supply(waiting.total, counted + round(waiting.submitted * _mean_length(session)), _speed(session))


def shortage(found: Supply, queue: QueueSettings, *, refilling: bool = False) -> str | None:
    """What is too little, in words; None where nothing is.

    While ``refilling``, every mark is held higher by the hysteresis, so that the queue does not hang at the mark.
    """
    factor = 1 + queue.hysteresis if refilling else 1.0
    examples, tokens = round(queue.low_water * factor), round(queue.low_tokens * factor)
    if found.examples < examples:
        return f"{found.examples:,} examples of {examples:,}"
    if found.tokens < tokens:
        return f"{found.tokens:,} tokens of {tokens:,}"
    minutes = found.minutes
    if minutes is not None and minutes < queue.low_minutes * factor:
        return f"{minutes:.1f} minutes of training of {queue.low_minutes * factor:.1f}"
    return None


def _waiting_tokens(session: Session) -> int:
    """Tokens of queued batches, and of the untrained rest of the open one."""
    query = select(BatchRow.tokens, BatchRow.examples, BatchRow.offset).where(
        BatchRow.state.in_(("queued", "training")), lacks_verdict(TRAINER, "batch", BatchRow.id), BatchRow.examples > 0
    )
    return sum(tokens * (examples - offset) // examples for tokens, examples, offset in session.execute(query))


def _mean_length(session: Session) -> float:
    """Tokens of an example, over all batches that the gate has counted."""
    tokens, examples = session.execute(
        select(func.sum(BatchRow.tokens), func.sum(BatchRow.examples)).where(BatchRow.tokens > 0)
    ).one()
    return float(tokens) / float(examples) if examples else 0.0


def _speed(session: Session) -> float | None:
    query = (
        select(CheckpointRow.tokens_per_s).where(CheckpointRow.tokens_per_s > 0).order_by(CheckpointRow.ordinal.desc())
    )
    speeds = sorted(speed for speed in session.scalars(query.limit(RECENT)) if speed is not None)
    return speeds[len(speeds) // 2] if speeds else None
