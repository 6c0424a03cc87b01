"""Batches as the command line and the pages show them: lists by state, where one came from, and what became of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session

from ratchet.errors import PreconditionFailed
from ratchet.ledger.queue import PRIORITIES
from ratchet.ledger.tables import BatchRow, CheckpointRow, ClaimRow, CoverageRow, ImpactRow, VerdictRow
from ratchet.systems import registry
from ratchet.wording import counted

OPEN = ("training", "queued", "submitted")
STATES = (*OPEN, "trained", "stored", "skipped", "rejected", "quarantined")
ORIGINS = ("generation", "correction", "user")
OF_BATCH = "batch"
"""The kind of subject of verdicts and claims on batches."""


@dataclass(frozen=True)
class Filter:
    """Which batches are listed; empty for all. ``in_quarantine``: only those with rows in quarantine."""

    state: str = ""
    origin: str = ""
    task: str = ""
    in_quarantine: bool = False

    def narrow(self, query: Select[Any]) -> Select[Any]:
        for column, wanted in (
            (BatchRow.state, self.state),
            (BatchRow.origin, self.origin),
            (BatchRow.task, self.task),
        ):
            if wanted:
                query = query.where(column == wanted)
        return query.where(BatchRow.quarantined > 0) if self.in_quarantine else query


def newest_batches(session: Session, wanted: Filter, limit: int, start: int = 0) -> list[BatchRow]:
    """Batches from the newest on, after ``start`` of them."""
    ids = wanted.narrow(select(BatchRow.id)).order_by(BatchRow.submitted_at.desc(), BatchRow.id)
    chosen = session.scalars(ids.offset(start).limit(limit)).all()
    rows = {row.id: row for row in session.scalars(select(BatchRow).where(BatchRow.id.in_(chosen)))}
    return [rows[found] for found in chosen]


def count_batches(session: Session, wanted: Filter) -> int:
    return session.scalar(wanted.narrow(select(func.count()).select_from(BatchRow))) or 0


def find_batch(session: Session, name: str) -> BatchRow:
    """The batch whose id begins so. Raises PreconditionFailed for none or several."""
    exact = session.get(BatchRow, name)
    if exact is not None:
        return exact
    rows = session.scalars(select(BatchRow).where(BatchRow.id.startswith(name, autoescape=True)).limit(2)).all()
    if len(rows) != 1:
        raise PreconditionFailed(
            f"{'no batch' if not rows else 'more than one batch'} begins with {name!r}: `ratchet queue list`."
        )
    return rows[0]


def priority(row: BatchRow) -> str:
    return next((name for name, number in PRIORITIES.items() if number == row.priority), str(row.priority))


@dataclass(frozen=True)
class Parent:
    """Something that a batch was made from. One of the names tells what it is: a batch's id, a checkpoint's number."""

    text: str
    batch: str | None = None
    checkpoint: int | None = None


@dataclass(frozen=True)
class BatchHistory:
    """A batch with all that is known about it. ``trained_in`` are the checkpoints that were saved from it."""

    row: BatchRow
    origin: Sequence[str]
    parents: Sequence[Parent]
    verdicts: Sequence[VerdictRow]
    claims: Sequence[ClaimRow]
    trained_in: Sequence[CheckpointRow]
    coverage: CoverageRow | None
    impacts: Sequence[tuple[ImpactRow, int]]


def batch_history(session: Session, row: BatchRow) -> BatchHistory:
    systems = [system.name for system in registry.known(session)]
    verdicts = select(VerdictRow).where(
        VerdictRow.system.in_(systems), VerdictRow.subject_kind == OF_BATCH, VerdictRow.subject_id == row.id
    )
    claims = select(ClaimRow).where(
        ClaimRow.system.in_(systems), ClaimRow.subject_kind == OF_BATCH, ClaimRow.subject_id == row.id
    )
    saved = select(CheckpointRow).where(CheckpointRow.batch_id == row.id).order_by(CheckpointRow.ordinal)
    impacts = select(ImpactRow, CheckpointRow.ordinal).join(CheckpointRow, CheckpointRow.id == ImpactRow.checkpoint_id)
    impacts = impacts.where(ImpactRow.batch_id == row.id).order_by(ImpactRow.error_class, CheckpointRow.ordinal)
    return BatchHistory(
        row=row,
        origin=tuple(origin_in_words(row)),
        parents=_parents(session, row.provenance),
        verdicts=session.scalars(verdicts.order_by(VerdictRow.created_at)).all(),
        claims=session.scalars(claims).all(),
        trained_in=session.scalars(saved.limit(50)).all(),
        coverage=session.get(CoverageRow, row.id),
        impacts=[(impact, ordinal) for impact, ordinal in session.execute(impacts.limit(200))],
    )


def origin_in_words(row: BatchRow) -> Iterator[str]:
    """Where the batch came from, a sentence each."""
    told: Mapping[str, Any] = row.provenance
    generator, counts = told.get("generator", "an unknown generator"), told.get("counts", {})
    if row.origin == "user":
        yield f"Rows that you added: {', '.join(told.get('parents', ())) or 'a file'}."
        if told.get("held_out"):
            yield f"{told['held_out']:,} rows of the task are held out for testing, and are not in it."
    elif row.origin == "correction":
        yield (
            f"{counts.get('corrections', 0):,} lessons made from wrong answers, among {counts.get('replay', 0):,} "
            "ordinary rows, so that nothing else is forgotten."
        )
        if classes := told.get("classes"):
            yield f"Kinds of mistakes: {counted(classes)}."
    elif tasks := told.get("tasks"):
        yield (
            "A pass over rows of tasks: "
            + "; ".join(
                f"{name}, {part.get('rows', 0):,} rows of {part.get('of', 0):,}, up to pass {part.get('pass', 0):.3g}"
                for name, part in tasks.items()
            )
            + "."
        )
        if replay := told.get("replay"):
            yield f"Mixed in, so that nothing is forgotten: {counted(replay)}."
    elif row.task is not None:
        yield f"New rows for the task {row.task}, written by {generator}."
    else:
        yield f"Problems made by the generator {generator} for the curriculum's mix."
        if assigned := told.get("assignment"):
            yield f"Drawn for the arm {assigned.get('arm')}, with probability {assigned.get('probability', 1.0):.2g}."
        if exhausted := told.get("exhausted"):
            yield f"Without new problems: {', '.join(map(str, exhausted))}."


def _parents(session: Session, told: Mapping[str, Any]) -> list[Parent]:
    """The sources that a provenance names, as far as they are batches or checkpoints."""
    if told.get("generator") == "file":
        return []
    found: list[Parent] = []
    for name in map(str, told.get("parents", ())[:50]):
        kind, _, subject = name.rpartition(":")
        if kind == "mined":
            ordinal = session.scalar(select(CheckpointRow.ordinal).where(CheckpointRow.id == subject))
            found.append(Parent("mistakes of", checkpoint=ordinal) if ordinal is not None else Parent(name))
        elif kind in ("", OF_BATCH):
            found.append(Parent("rows of batch", batch=subject))
        else:
            found.append(Parent(name.replace(":", " ")))
    return found
