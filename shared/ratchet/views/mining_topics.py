"""Topics about mistakes: what mining found in checkpoints, and what correction batches changed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from sqlalchemy import select
from sqlalchemy.orm import Session

from ratchet.ledger.correction_backoff import classes_in_backoff
from ratchet.ledger.tables import BatchRow, CheckpointRow, ImpactRow, MinedRow
from ratchet.views.topics import Reader, Table, Topic
from ratchet.wording import counted, when

MOST_ORDINAL = 2**31 - 1
"""PostgreSQL refuses to compare a column of integers with more."""
IMPACT_FIELDS = (
    "batch_id",
    "checkpoint_id",
    "error_class",
    "baseline_id",
    "items",
    "before",
    "after",
    "gains",
    "losses",
    "low",
    "high",
)


class Mined(NamedTuple):
    """What was mined from a checkpoint."""

    row: MinedRow
    ordinal: int

    @property
    def numbers(self) -> Mapping[str, Any]:
        return self.row.numbers or {}

    @property
    def best_arm(self) -> str:
        yields = self.numbers.get("yields", {})
        if not yields:
            return ""
        name, (weak, asked) = max(yields.items(), key=lambda pair: (pair[1][0] / max(pair[1][1], 1), pair[1][1]))
        return f"{name}: {weak} of {asked}"

    @property
    def still_failed(self) -> str:
        follow_up = self.numbers.get("follow_up")
        if not follow_up:
            return ""
        return (
            f"{follow_up['mined_failed']} of {follow_up['mined']} mined, "
            f"{follow_up['random_failed']} of {follow_up['random']} random"
        )

    @property
    def against_random(self) -> str:
        follow_up = self.numbers.get("follow_up")
        if not follow_up:
            return ""
        excess = follow_up["excess"]
        return f"{100 * excess['low']:+.0f} to {100 * excess['high']:+.0f}"

    def values(self) -> dict[str, Any]:
        return {
            "checkpoint_id": self.row.checkpoint_id,
            "ordinal": self.ordinal,
            "count": self.row.count,
            "by_category": self.row.by_category,
            "artifact": self.row.artifact,
            "created_at": self.row.created_at,
            **self.numbers,
        }


def mined(reader: Reader, limit: int = 15) -> Topic:
    """List what mining found, the newest checkpoint first.

    `still failed` counts the items of the previously mined set that a checkpoint got wrong, next to as many random
    items of the same families and levels. The range holds the difference with 95 % probability; if it includes 0,
    mining did not demonstrably beat chance. --json has the yield of every arm of the search.
    """
    found = mined_sets(reader.session, limit)
    columns = {
        "": lambda m: f"#{m.ordinal}",
        ">mined": lambda m: m.row.count,
        "categories": lambda m: ", ".join(f"{count} {name}" for name, count in sorted(m.row.by_category.items())),
        ">asked": lambda m: m.numbers.get("asked", 0),
        "best arm": lambda m: m.best_arm,
        "still failed": lambda m: m.still_failed,
        "against random, points": lambda m: m.against_random,
        "at": lambda m: when(m.row.created_at),
    }
    empty = "nothing has been mined yet: mining needs an evaluated checkpoint."
    return Topic([Table("mined", found, columns, Mined.values)], empty=empty)


def mined_sets(session: Session, limit: int, before: int | None = None) -> list[Mined]:
    """What was mined from the checkpoints before that number, the newest first."""
    query = select(MinedRow, CheckpointRow.ordinal).join(CheckpointRow, CheckpointRow.id == MinedRow.checkpoint_id)
    if before is not None:
        query = query.where(CheckpointRow.ordinal < min(before, MOST_ORDINAL))
    return [Mined(*row) for row in session.execute(query.order_by(CheckpointRow.ordinal.desc()).limit(limit))]


class Impact(NamedTuple):
    """The effect of a correction batch on one error class, at one evaluation after it."""

    row: ImpactRow
    ordinal: int

    @property
    def fall(self) -> float:
        """By how much the rate of the error class has fallen, as a share of the items; 0 where there are none."""
        return (self.row.gains - self.row.losses) / self.row.items if self.row.items else 0.0

    def values(self) -> dict[str, Any]:
        return {name: getattr(self.row, name) for name in IMPACT_FIELDS} | {"ordinal": self.ordinal}


def corrections(reader: Reader, limit: int = 10) -> Topic:
    """List the correction batches and their effects.

    The newest come first. An effect is the paired change on the probe items of the examples' levels: how many show the
    error class before and after, and the fall of its rate in points, with the 95 % range. Classes that did not become
    rarer get no examples for some batches.
    """
    found = correction_batches(reader.session, limit)
    batches = [batch for batch, _ in found]
    backed_off = classes_in_backoff(reader.session)
    shown = {
        "batch": lambda b: b.id[:6],
        "state": lambda b: b.state,
        "submitted": lambda b: when(b.submitted_at),
        ">corrections": lambda b: b.provenance.get("counts", {}).get("corrections", 0),
        ">ordinary": lambda b: b.provenance.get("counts", {}).get("replay", 0),
        "error classes": lambda b: counted(b.provenance.get("classes", {})),
    }
    effects = {
        "batch": lambda i: i.row.batch_id[:6],
        "error class": lambda i: i.row.error_class,
        "at": lambda i: f"#{i.ordinal}",
        ">before": lambda i: i.row.before,
        ">after": lambda i: i.row.after,
        ">items": lambda i: i.row.items,
        ">fall": lambda i: f"{100 * i.fall:+.1f}",
        "95 % range": lambda i: f"{100 * i.row.low:+.1f} to {100 * i.row.high:+.1f}",
    }

    def values(batch: BatchRow) -> dict[str, Any]:
        names = ("state", "submitted_at", "provenance")
        return {"batch_id": batch.id} | {name: getattr(batch, name) for name in names}

    measured_impacts = [impact for _, impacts in found for impact in impacts]
    return Topic(
        [
            Table("batches", batches, shown, values),
            Table(
                "effects", measured_impacts, effects, lambda i: {"batch_id": i.row.batch_id, **i.values()}, "Effects"
            ),
        ],
        note="\n".join(f"no examples for now: {name} ({reason})" for name, reason in backed_off.items()),
        empty="no corrections yet: they are made once mining has found weak items.",
        json_fields={"backed_off": backed_off},
    )


def correction_batches(session: Session, limit: int, offset: int = 0) -> list[tuple[BatchRow, list[Impact]]]:
    """The correction batches, the newest first, each with its effects by error class and checkpoint."""
    query = select(BatchRow).where(BatchRow.origin == "correction").order_by(BatchRow.submitted_at.desc(), BatchRow.id)
    batches = session.scalars(query.limit(limit).offset(offset)).all()
    measured = select(ImpactRow, CheckpointRow.ordinal).join(CheckpointRow, CheckpointRow.id == ImpactRow.checkpoint_id)
    measured = measured.where(ImpactRow.batch_id.in_([batch.id for batch in batches]))
    measured = measured.order_by(ImpactRow.error_class, CheckpointRow.ordinal)
    impacts: dict[str, list[Impact]] = {batch.id: [] for batch in batches}
    for row in session.execute(measured):
        impacts[row[0].batch_id].append(Impact(*row))
    return [(batch, impacts[batch.id]) for batch in batches]
