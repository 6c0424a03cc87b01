"""Suites, evaluations, and the judgements that rest on them."""

from __future__ import annotations

from sqlalchemy import ForeignKey, Index, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from ratchet.ledger.tables.base import Base, Id, Json, Moment, Serial


class SuiteRow(Base):
    """A versioned set of items of one pool. ``uses`` counts challenges spent on a confirm suite."""

    __tablename__ = "suites"
    __table_args__ = (Index(None, "pool", "retired_at"),)

    id: Mapped[Id]
    pool: Mapped[str]
    ordinal: Mapped[int]
    artifact: Mapped[str]
    items: Mapped[int]
    uses: Mapped[int] = mapped_column(default=0)
    created_at: Mapped[Moment]
    retired_at: Mapped[float | None]


class EvaluationRequest(Base):
    """Somebody needs a checkpoint's record on a suite that testing does not run by itself."""

    __tablename__ = "evaluation_requests"

    checkpoint_id: Mapped[str] = mapped_column(ForeignKey("checkpoints.id"), primary_key=True)
    suite_id: Mapped[str] = mapped_column(ForeignKey("suites.id"), primary_key=True)
    requested_by: Mapped[str]
    created_at: Mapped[Moment]


class Evaluation(Base):
    """One checkpoint's record on one suite; ``artifact`` holds a line an item. ``key`` is the RecordKey's fields.

    ``tally`` has the grades, a bit an item: a ranking reads it instead of the artifact.
    """

    __tablename__ = "evaluations"
    __table_args__ = (UniqueConstraint("checkpoint_id", "suite_id"),)

    id: Mapped[Id]
    checkpoint_id: Mapped[str] = mapped_column(ForeignKey("checkpoints.id"))
    suite_id: Mapped[str] = mapped_column(ForeignKey("suites.id"))
    pool: Mapped[str]
    key: Mapped[Json]
    artifact: Mapped[str]
    items: Mapped[int]
    correct: Mapped[int]
    by_level: Mapped[Json]
    tokens_per_s: Mapped[Moment]
    tally: Mapped[Json | None]
    created_at: Mapped[Moment]


class Regression(Base):
    """The regression monitor's numbers for a checkpoint."""

    __tablename__ = "regressions"

    checkpoint_id: Mapped[str] = mapped_column(ForeignKey("checkpoints.id"), primary_key=True)
    baseline_id: Mapped[str | None]
    severity: Mapped[str]
    numbers: Mapped[Json]
    created_at: Mapped[Moment]


class Ranking(Base):
    """A ranking over all evaluated checkpoints; the newest row rules."""

    __tablename__ = "rankings"

    id: Mapped[Serial]
    best_checkpoint_id: Mapped[str]
    entries: Mapped[Json]
    created_at: Mapped[Moment]


class Calibration(Base):
    """The calibrator's numbers for a checkpoint; its temperature ships with a deployment."""

    __tablename__ = "calibrations"

    checkpoint_id: Mapped[str] = mapped_column(ForeignKey("checkpoints.id"), primary_key=True)
    numbers: Mapped[Json]
    created_at: Mapped[Moment]
