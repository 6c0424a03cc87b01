"""Forks of the training line: two arms trained from one checkpoint, and what testing said of them."""

from __future__ import annotations

from sqlalchemy import ForeignKey, Index
from sqlalchemy.orm import Mapped, mapped_column

from ratchet.ledger.tables.base import Base, Json, Moment, Serial, Size


class Fork(Base):
    """Two branches from one checkpoint. ``state``: open, then decided or abandoned.

    ``parent_id``, ``fresh_optimizer`` and ``adapter_base_id`` are the line as it stood when the first branch began; no
    parent before. ``winner`` is the place of the branch that training went on with, ``numbers`` the paired test.
    """

    __tablename__ = "forks"

    id: Mapped[Serial]
    state: Mapped[str] = mapped_column(default="open")
    curriculum_id: Mapped[int]
    parent_id: Mapped[str | None] = mapped_column(ForeignKey("checkpoints.id"))
    fresh_optimizer: Mapped[bool] = mapped_column(default=False)
    adapter_base_id: Mapped[str | None]
    winner: Mapped[int | None]
    numbers: Mapped[Json] = mapped_column(default=dict)
    reason: Mapped[str] = mapped_column(default="")
    opened_at: Mapped[Moment]
    closed_at: Mapped[float | None]


class Branch(Base):
    """One arm of a fork. ``place`` 0 is the arm that was held to be the best, 1 its challenger.

    ``batch_id`` is the batch made for it alone. ``tip_id`` is the checkpoint at its end, once the batch is trained, and
    ``adapter_base_id`` what the adapters of that one stand on.
    """

    __tablename__ = "branches"
    __table_args__ = (Index(None, "batch_id"),)

    fork_id: Mapped[Size] = mapped_column(ForeignKey("forks.id"), primary_key=True)
    place: Mapped[int] = mapped_column(primary_key=True)
    arm: Mapped[str]
    probability: Mapped[Moment]
    batch_id: Mapped[str | None] = mapped_column(ForeignKey("batches.id"))
    tip_id: Mapped[str | None] = mapped_column(ForeignKey("checkpoints.id"))
    adapter_base_id: Mapped[str | None]
