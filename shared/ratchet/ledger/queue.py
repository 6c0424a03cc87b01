"""The training queue: its depth, the next batch, submission of batches, and shortage of supply.

Also the usage counts: how often each item has been queued for training, over all batches.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import ColumnElement, Select, func, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from ratchet.errors import AlreadySubmitted
from ratchet.events.catalogue import BatchSubmitted
from ratchet.ledger.ledger import Transaction
from ratchet.ledger.pending import lacks_verdict
from ratchet.ledger.tables import BatchRow, CheckpointRow, UsageCountRow
from ratchet.settings import Settings

Origin = Literal["generation", "correction", "user"]
TRAINER = "training"
GATE = "correction"
"""The system whose verdict moves a batch from submitted to queued; the trainer's verdict takes it out of the queue."""

PRIORITIES = {"high": 0, "normal": 1, "low": 2}

RECENT_SEGMENTS = 5
"""The number of segments whose median speed is used."""

HYSTERESIS = 0.1
"""A refill continues until the low-water mark is exceeded by this share, so that the queue does not oscillate around
it."""

_CHUNK = 500


@dataclass(frozen=True)
class Depth:
    """Examples on their way to training, by state. ``running`` is the untrained rest of the batch in training.

    Batches with an open dead letter, and rows that are to be stored, do not count.
    """

    submitted: int
    queued: int
    running: int

    @property
    def total(self) -> int:
        return self.submitted + self.queued + self.running


def depth(session: Session, origin: Origin | None = None) -> Depth:
    """Depth of the queue, of all batches or of those from one origin."""
    return Depth(
        submitted=_sum(session, BatchRow.submitted_examples, "submitted", GATE, origin),
        queued=_sum(session, BatchRow.examples, "queued", TRAINER, origin),
        running=_sum(session, BatchRow.examples - BatchRow.offset, "training", TRAINER, origin),
    )


def next_batch(session: Session) -> BatchRow | None:
    """The batch in training, else the queued one of the highest priority that has waited longest."""
    return session.scalar(_waiting().limit(1))


def skipped_midway(session: Session) -> list[BatchRow]:
    """Batches that were skipped while in training, and have no verdict yet."""
    query = select(BatchRow).where(BatchRow.state == "skipped", BatchRow.started_at.is_not(None))
    return list(session.scalars(query.where(lacks_verdict(TRAINER, "batch", BatchRow.id)).order_by(BatchRow.id)))


def submit(
    tx: Transaction,
    artifact_id: str,
    examples: int,
    origin: Origin,
    provenance: Mapping[str, Any],
    priority: str = "normal",
    task: str | None = None,
) -> BatchSubmitted:
    """Submit a published batch to the data gate; returns the event, not yet emitted.

    Rows of a user's ``task`` are stored once they have passed, and never queued themselves. Raises PreconditionFailed
    for content that was submitted before.
    """
    batch_id = artifact_id[:16]
    known = tx.session.get(BatchRow, batch_id)
    if known is not None:
        raise AlreadySubmitted(
            f"batch {batch_id} exists already and is {known.state}: the same rows were submitted before."
        )
    tx.session.add(
        BatchRow(
            id=batch_id,
            origin=origin,
            task=task,
            state="submitted",
            priority=PRIORITIES[priority],
            submitted_artifact=artifact_id,
            artifact=None,
            quarantine_artifact=None,
            submitted_examples=examples,
            provenance=dict(provenance),
            submitted_at=tx.now,
            queued_at=None,
            started_at=None,
            finished_at=None,
        )
    )
    return BatchSubmitted(batch_id=batch_id)


@dataclass(frozen=True)
class Supply:
    """What waits for training. ``tokens`` are counted by the data gate; those of submitted batches are estimated by the
    mean length of what has passed it. ``tokens_per_s`` is None before the first segment."""

    examples: int
    tokens: int
    tokens_per_s: float | None

    def with_more(self, examples: int) -> Supply:
        """The supply with that many more examples of mean length."""
        length = self.tokens / self.examples if self.examples else 0.0
        return Supply(self.examples + examples, self.tokens + round(examples * length), self.tokens_per_s)

    @property
    def minutes(self) -> float | None:
        """Minutes of training left at the measured speed."""
        return self.tokens / self.tokens_per_s / 60 if self.tokens_per_s else None


def supply(session: Session) -> Supply:
    """The current supply."""
    waiting = depth(session)
    counted = _waiting_tokens(session)
    return Supply(waiting.total, counted + round(waiting.submitted * _mean_length(session)), _speed(session))


def low_mark(settings: Settings) -> int:
    """Examples below which the queue is refilled with families. Without families nothing is meant to fill it."""
    return settings.queue.low_water if settings.suites.families else 0


def shortage(found: Supply, low_water: int, *, refilling: bool = False) -> str | None:
    """A description of the shortage, or None if there is none. While ``refilling``, more is wanted (see HYSTERESIS)."""
    wanted = round(low_water * (1 + HYSTERESIS)) if refilling else low_water
    return f"{found.examples:,} examples of {wanted:,}" if found.examples < wanted else None


def all_usage_counts(session: Session, at_least: int = 1) -> dict[str, int]:
    """Usage counts by item key, of items used at least ``at_least`` times."""
    query = select(UsageCountRow.key, UsageCountRow.uses).where(UsageCountRow.uses >= at_least)
    return {row.key: row.uses for row in session.execute(query)}


def usage_counts(session: Session, keys: Collection[str]) -> dict[str, int]:
    """Usage counts of these keys; keys that were never used are missing."""
    wanted, found = list(keys), dict[str, int]()
    for start in range(0, len(wanted), _CHUNK):
        query = select(UsageCountRow.key, UsageCountRow.uses).where(
            UsageCountRow.key.in_(wanted[start : start + _CHUNK])
        )
        found.update((row.key, row.uses) for row in session.execute(query))
    return found


def add_usage_counts(tx: Transaction, counts: Mapping[str, int]) -> None:
    """Add a batch's usage counts."""
    dialect = postgresql if tx.session.get_bind().dialect.name == "postgresql" else sqlite
    rows = [{"key": key, "uses": uses} for key, uses in counts.items()]
    for start in range(0, len(rows), _CHUNK):
        insert = dialect.insert(UsageCountRow).values(rows[start : start + _CHUNK])
        total = UsageCountRow.uses + insert.excluded.uses
        tx.session.execute(insert.on_conflict_do_update(index_elements=[UsageCountRow.key], set_={"uses": total}))


def _waiting() -> Select[BatchRow]:
    """Batches without the trainer's verdict, in the order in which they are trained."""
    query = select(BatchRow).where(
        BatchRow.state.in_(("training", "queued")), lacks_verdict(TRAINER, "batch", BatchRow.id)
    )
    return query.order_by(BatchRow.state.desc(), BatchRow.priority, BatchRow.queued_at, BatchRow.id)


def _sum(session: Session, column: ColumnElement[int] | Any, state: str, system: str, origin: Origin | None) -> int:
    query = select(func.coalesce(func.sum(column), 0))
    query = query.where(BatchRow.state == state, BatchRow.task.is_(None), lacks_verdict(system, "batch", BatchRow.id))
    return int(session.scalar(query if origin is None else query.where(BatchRow.origin == origin)) or 0)


def _waiting_tokens(session: Session) -> int:
    """Tokens of queued batches and of the untrained rest of the one in training."""
    query = select(BatchRow.tokens, BatchRow.examples, BatchRow.offset).where(
        BatchRow.state.in_(("queued", "training")), lacks_verdict(TRAINER, "batch", BatchRow.id), BatchRow.examples > 0
    )
    return sum(tokens * (examples - offset) // examples for tokens, examples, offset in session.execute(query))


def _mean_length(session: Session) -> float:
    """Mean tokens of an example, over all batches that the data gate has counted."""
    tokens, examples = session.execute(
        select(func.sum(BatchRow.tokens), func.sum(BatchRow.examples)).where(BatchRow.tokens > 0)
    ).one()
    return float(tokens) / float(examples) if examples else 0.0


def _speed(session: Session) -> float | None:
    query = (
        select(CheckpointRow.tokens_per_s).where(CheckpointRow.tokens_per_s > 0).order_by(CheckpointRow.ordinal.desc())
    )
    speeds = sorted(speed for speed in session.scalars(query.limit(RECENT_SEGMENTS)) if speed is not None)
    return speeds[len(speeds) // 2] if speeds else None
