"""`ratchet corrections`: the batches made of mistakes, and what each did to its error classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import typer
from sqlalchemy import select
from sqlalchemy.orm import Session

from ratchet.cli.context import opened
from ratchet.cli.output import Json, clock, print_json, print_table
from ratchet.ledger.correction_backoff import classes_in_backoff
from ratchet.ledger.tables import BatchRow, CheckpointRow, ImpactRow


def corrections(
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="How many batches to list.")] = 10,
    as_json: Annotated[bool, Json] = False,
) -> None:
    """List the correction batches, the newest first, with their effect at the evaluations after them.

    An effect is the paired change on the probe items of the examples' levels: how many show the error class before and
    after, and how far its rate fell, in points, with the 95 % range. Classes that did not become rarer get no examples
    for some batches.
    """
    with opened() as (_, ledger), ledger.read() as session:
        batches = _batches(session, limit)
        impacts = {batch.id: _impacts(session, batch.id) for batch in batches}
        backed_off = classes_in_backoff(session)
    if as_json:
        print_json({"batches": [_as_values(b, impacts[b.id]) for b in batches], "backed_off": backed_off})
        return
    if not batches:
        typer.echo("no corrections yet: they are made once mining has found weak items.")
        return
    for batch in batches:
        _print_batch(batch, impacts[batch.id])
    for name, reason in backed_off.items():
        typer.echo(f"backed off: {name} ({reason})")


def _batches(session: Session, limit: int) -> Sequence[BatchRow]:
    query = select(BatchRow).where(BatchRow.origin == "correction").order_by(BatchRow.submitted_at.desc()).limit(limit)
    return session.scalars(query).all()


def _impacts(session: Session, batch_id: str) -> list[tuple[ImpactRow, int]]:
    query = select(ImpactRow, CheckpointRow.ordinal).join(CheckpointRow, CheckpointRow.id == ImpactRow.checkpoint_id)
    query = query.where(ImpactRow.batch_id == batch_id).order_by(ImpactRow.error_class, CheckpointRow.ordinal)
    return [(row, ordinal) for row, ordinal in session.execute(query)]


def _print_batch(batch: BatchRow, impacts: list[tuple[ImpactRow, int]]) -> None:
    counts = batch.provenance.get("counts", {})
    classes = ", ".join(f"{count} {name}" for name, count in batch.provenance.get("classes", {}).items())
    typer.echo(
        f"{batch.id[:6]} {batch.state}, {clock(batch.submitted_at)}: {counts.get('corrections', 0)} correction examples
        among " f"{counts.get('replay', 0)} ordinary rows{': ' + classes if classes else ''}"
    )
    if impacts:
        print_table(
            ("  class", "at", ">before", ">after", ">items", ">fall", "95 % range"),
            (_cells(impact, ordinal) for impact, ordinal in impacts),
        )


def _cells(impact: ImpactRow, ordinal: int) -> tuple[object, ...]:
    effect = (impact.gains - impact.losses) / impact.items
    return (
        f"  {impact.error_class}",
        f"#{ordinal}",
        impact.before,
        impact.after,
        impact.items,
        f"{100 * effect:+.1f}",
        f"{100 * impact.low:+.1f} to {100 * impact.high:+.1f}",
    )


def _as_values(batch: BatchRow, impacts: list[tuple[ImpactRow, int]]) -> dict[str, Any]:
    names = (
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
    return {
        "batch_id": batch.id,
        "state": batch.state,
        "submitted_at": batch.submitted_at,
        "provenance": batch.provenance,
        "impacts": [{name: getattr(row, name) for name in names} | {"ordinal": ordinal} for row, ordinal in impacts],
    }
