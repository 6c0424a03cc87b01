"""The tables of the controllers: verdicts, claims, dead letters, workers, damage, the outbox, locked settings."""

from __future__ import annotations

from sqlalchemy import Index, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from ratchet.ledger.tables.columns import Base, Float, Id, Json, Serial


class VerdictRow(Base):
    """What a system decided about a subject. One a system and subject, kept for ever.

    ``reason`` and ``numbers`` are for people and reports.
    """

    __tablename__ = "verdicts"
    __table_args__ = (UniqueConstraint("system", "subject_kind", "subject_id"),)

    id: Mapped[Serial]
    system: Mapped[str]
    subject_kind: Mapped[str]
    subject_id: Mapped[str]
    outcome: Mapped[str]
    reason: Mapped[str] = mapped_column(Text)
    numbers: Mapped[Json]
    cause: Mapped[str | None]
    worker: Mapped[str]
    created_at: Mapped[Float]
    took_s: Mapped[Float]


class ClaimRow(Base):
    """A system's work on a subject. The row is deleted with the verdict; failures are counted in it until then.

    ``progress`` counts heartbeats of the work, ``note`` says what it is doing, ``status`` has more where there is more.
    """

    __tablename__ = "claims"

    system: Mapped[str] = mapped_column(primary_key=True)
    subject_kind: Mapped[str] = mapped_column(primary_key=True)
    subject_id: Mapped[str] = mapped_column(primary_key=True)
    token: Mapped[int]
    owner: Mapped[str | None]
    first_at: Mapped[Float]
    claimed_at: Mapped[Float]
    heartbeat_at: Mapped[Float]
    expires_at: Mapped[Float]
    not_before_at: Mapped[Float]
    progress: Mapped[int] = mapped_column(default=0)
    note: Mapped[str] = mapped_column(default="")
    status: Mapped[Json] = mapped_column(default=dict)
    failures: Mapped[int] = mapped_column(default=0)
    kills: Mapped[int] = mapped_column(default=0)


class CounterRow(Base):
    """Monotonic numbers: fencing tokens, refill ordinals."""

    __tablename__ = "counters"

    name: Mapped[Id]
    value: Mapped[int]


class DeadLetterRow(Base):
    """A subject that a system gave up, or an event that could not be decoded. ``resolved_at`` is set by a retry."""

    __tablename__ = "dead_letters"
    __table_args__ = (Index(None, "system", "subject_kind", "subject_id"),)

    id: Mapped[Serial]
    system: Mapped[str]
    subject_kind: Mapped[str]
    subject_id: Mapped[str]
    error: Mapped[str] = mapped_column(Text)
    traceback: Mapped[str] = mapped_column(Text)
    failures: Mapped[int]
    kills: Mapped[int]
    created_at: Mapped[Float]
    resolved_at: Mapped[float | None]
    resolution: Mapped[str | None]


class WorkerRow(Base):
    """A worker that registered itself, and when it was last seen.

    ``state`` is running, waiting (``error`` says for what), failed (at its start, with the traceback in ``error``),
    stopping or stopped. ``failures`` counts failed starts in a row, including early deaths, which ``error`` describes
    during the first minute of the next process. ``pages`` are other metrics endpoints of its host, URLs by name.
    ``declaration`` is what other hosts need to know of its system, whose code they may lack.
    """

    __tablename__ = "workers"

    name: Mapped[Id]
    system: Mapped[str]
    host: Mapped[str]
    pid: Mapped[int]
    version: Mapped[str]
    started_at: Mapped[Float]
    seen_at: Mapped[Float]
    metrics_url: Mapped[str | None]
    pages: Mapped[Json] = mapped_column(default=dict)
    declaration: Mapped[Json] = mapped_column(default=dict)
    state: Mapped[str] = mapped_column(default="running")
    error: Mapped[str | None] = mapped_column(Text, default=None)
    failures: Mapped[int] = mapped_column(default=0)


class DamageRow(Base):
    """An artifact that a system found damaged while working on a subject, and what follows from it.

    ``resolved_at`` is set when the subject has been decided after all, or the champion is served again. A damaged
    checkpoint that training left behind is never resolved. Damage is shown for a day after ``last_seen_at``.
    """

    __tablename__ = "damages"
    __table_args__ = (Index(None, "artifact"),)

    id: Mapped[Serial]
    artifact: Mapped[str]
    error: Mapped[str] = mapped_column(Text)
    system: Mapped[str]
    subject_kind: Mapped[str]
    subject_id: Mapped[str]
    consequence: Mapped[str] = mapped_column(Text)
    found_at: Mapped[Float]
    last_seen_at: Mapped[Float]
    resolved_at: Mapped[float | None]


class OutboxRow(Base):
    """Events, committed with the change that they announce and relayed to Redis afterwards, at least once."""

    __tablename__ = "outbox"
    __table_args__ = (Index("ix_outbox_waiting", "relayed_at", "seq"), Index(None, "cause"))

    seq: Mapped[Serial]
    event_id: Mapped[str] = mapped_column(unique=True)
    name: Mapped[str]
    cause: Mapped[str | None]
    body: Mapped[str] = mapped_column(Text)
    created_at: Mapped[Float]
    relayed_at: Mapped[float | None]


class LockedSettingRow(Base):
    """Settings fixed by the first run: base model, architecture, context length, vocabulary."""

    __tablename__ = "locked_settings"

    name: Mapped[Id]
    value: Mapped[str] = mapped_column(Text)
    locked_at: Mapped[Float]
