"""The tables of batches and tasks, of mined items, of the curriculum, and of what the data did to the model."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ForeignKey, Index, Text, text
from sqlalchemy.orm import Mapped, mapped_column

from ratchet.ledger.tables.columns import Base, BigInt, Float, Id, Json, Serial


def _only(condition: str) -> dict[str, Any]:
    """Rows that an index has, on both engines."""
    return {"sqlite_where": text(condition), "postgresql_where": text(condition)}


class BatchRow(Base):
    """A set of examples. ``state``: submitted → queued → training → trained; or rejected, quarantined, skipped.

    Rows of a user's ``task`` are ``stored`` when they have passed the data gate: batches are made from them.

    ``submitted_artifact`` is what was submitted, ``artifact`` what passed the data gate, ``quarantine_artifact`` the
    rows that did not, each with its reason. ``offset`` counts the examples already in a saved checkpoint.
    ``priority``: 0 high, 1 normal, 2 low.
    """

    __tablename__ = "batches"
    __table_args__ = (
        Index(None, "state", "priority", "submitted_at"),
        # Of ten thousand batches, for lists and sums that a page shows; a row holds kilobytes of JSON.
        Index(None, "submitted_at"),
        Index(None, "state", "submitted_at"),
        Index(None, "origin", "submitted_at"),
        Index(None, "tokens", "examples"),
        Index("ix_batches_task", "task", "submitted_at", "examples", **_only("task IS NOT NULL")),
        Index("ix_batches_quarantined", "submitted_at", "quarantined", **_only("quarantined > 0")),
        Index("ix_batches_admitted", "id", "queued_at", **_only("artifact IS NOT NULL AND task IS NULL")),
    )

    id: Mapped[Id]
    origin: Mapped[str]
    task: Mapped[str | None] = mapped_column(default=None)
    state: Mapped[str]
    priority: Mapped[int]
    submitted_artifact: Mapped[str]
    artifact: Mapped[str | None]
    quarantine_artifact: Mapped[str | None]
    submitted_examples: Mapped[int]
    examples: Mapped[int] = mapped_column(default=0)
    tokens: Mapped[int] = mapped_column(default=0)
    quarantined: Mapped[int] = mapped_column(default=0)
    offset: Mapped[int] = mapped_column(default=0)
    provenance: Mapped[Json]
    report: Mapped[Json] = mapped_column(default=dict)
    submitted_at: Mapped[Float]
    queued_at: Mapped[float | None]
    started_at: Mapped[float | None]
    finished_at: Mapped[float | None]


class TaskRow(Base):
    """A data set that a model is taught and judged on, under a name of its own. ``kind``: user, or general.

    The name is the family of its rows and items. ``held_out`` names the artifact of the held-out rows by pool;
    ``version`` grows when they change. ``rows`` counts distinct rows, held-out ones included. ``passes`` counts how
    often its training rows have been put into batches since rows were last added. ``state``: active, or used_up with
    the reason. ``best_id`` is the checkpoint with the best probe record on it, and ``stale`` counts the checkpoints
    since that were trained on it and measured.
    """

    __tablename__ = "tasks"

    name: Mapped[Id]
    kind: Mapped[str]
    metric: Mapped[str]
    grader: Mapped[str | None]
    pattern: Mapped[str | None]
    source: Mapped[str] = mapped_column(Text)
    protected: Mapped[bool] = mapped_column(default=True)
    version: Mapped[int] = mapped_column(default=0)
    held_out: Mapped[Json]
    rows: Mapped[int]
    held_rows: Mapped[int]
    passes: Mapped[Float] = mapped_column(default=0.0)
    best_id: Mapped[str | None] = mapped_column(default=None)
    stale: Mapped[int] = mapped_column(default=0)
    state: Mapped[str] = mapped_column(default="active")
    reason: Mapped[str] = mapped_column(Text, default="")
    created_at: Mapped[Float]
    updated_at: Mapped[Float]


class UsageCountRow(Base):
    """How often an item has been queued for training, over all batches. The epoch cap limits it."""

    __tablename__ = "usage_counts"

    key: Mapped[Id]
    uses: Mapped[int]


class MinedRow(Base):
    """The items that mining found a checkpoint weak on; ``artifact`` holds them as JSONL.

    ``numbers`` are the yields of the search, and the checkpoint's results on the previous set.
    """

    __tablename__ = "mined"

    checkpoint_id: Mapped[Id]
    artifact: Mapped[str | None]
    count: Mapped[int]
    by_category: Mapped[Json]
    numbers: Mapped[Json] = mapped_column(default=dict)
    created_at: Mapped[Float]


class ImpactRow(Base):
    """The effect of a correction batch on one error class, by the paired outcomes of the probe items from the baseline
    before it to a checkpoint after it.

    Of the family's ``items``, ``before`` showed the class at the baseline and ``after`` at the checkpoint; ``gains``
    stopped showing it, ``losses`` started to. ``low`` and ``high`` bound the fall of its rate (95 %).
    """

    __tablename__ = "impacts"

    batch_id: Mapped[str] = mapped_column(primary_key=True)
    checkpoint_id: Mapped[str] = mapped_column(primary_key=True)
    error_class: Mapped[str] = mapped_column(primary_key=True)
    baseline_id: Mapped[str]
    items: Mapped[int]
    before: Mapped[int]
    after: Mapped[int]
    gains: Mapped[int]
    losses: Mapped[int]
    low: Mapped[Float]
    high: Mapped[Float]
    created_at: Mapped[Float]


class SpendingRow(Base):
    """What a generator used of a model server for a refill, whether or not the attempt succeeded."""

    __tablename__ = "spendings"

    id: Mapped[Serial]
    generator: Mapped[str]
    refill: Mapped[str] = mapped_column(index=True)
    requests: Mapped[int]
    prompt_tokens: Mapped[BigInt]
    answer_tokens: Mapped[BigInt]
    created_at: Mapped[Float] = mapped_column(index=True)


class CoverageRow(Base):
    """What diversity measured over a batch and its predecessors."""

    __tablename__ = "coverage"
    __table_args__ = (Index(None, "created_at"),)

    batch_id: Mapped[Id]
    numbers: Mapped[Json]
    created_at: Mapped[Float]


class CurriculumRow(Base):
    """The mix of what is generated next. The newest row is in force.

    ``experiment`` has the share of the batches that each arm gets, and ``mixes`` each arm's mix by its name; ``mix`` is
    that of the leading arm.
    """

    __tablename__ = "curriculum"

    id: Mapped[Serial]
    mix: Mapped[Json]
    mastery: Mapped[Json]
    mixes: Mapped[Json] = mapped_column(default=dict)
    experiment: Mapped[Json] = mapped_column(default=dict)
    reason: Mapped[str]
    created_at: Mapped[Float]


class TrialRow(Base):
    """A stretch of training on batches drawn for one arm, and its paired outcomes on the probe suite.

    It goes from the checkpoint ``before_id`` to ``checkpoint_id``; ``through`` lists its ``batches`` and the
    ``checkpoints`` in between that have no record of their own.
    """

    __tablename__ = "trials"

    checkpoint_id: Mapped[str] = mapped_column(ForeignKey("checkpoints.id"), primary_key=True)
    before_id: Mapped[str] = mapped_column(ForeignKey("checkpoints.id"), index=True)
    through: Mapped[Json]
    arm: Mapped[str]
    tokens: Mapped[BigInt]
    items: Mapped[int]
    gains: Mapped[int]
    losses: Mapped[int]
    created_at: Mapped[Float]
