"""`ratchet coverage`: what the batches cover, and what they lack."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer
from sqlalchemy import select
from sqlalchemy.orm import Session

from ratchet.cli.output import Json, clock, print_json, print_table
from ratchet.cli.place import opened
from ratchet.ledger.tables import BatchRow, CoverageRow


def coverage(
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="How many batches to list.")] = 10,
    as_json: Annotated[bool, Json] = False,
) -> None:
    """Show how the newest batch covers family, level and feature, and how the batches before it did.

    `new` is the share of different items that no earlier batch had, `new runs` that of runs of three words. Entropy is
    1 where all levels have equally many rows. A gap says how far a level falls short of its share in the mix.
    """
    with opened() as (_, ledger), ledger.read() as session:
        rows = _rows(session, limit)
    if as_json:
        print_json([{"batch_id": row.batch_id, "origin": origin, **row.numbers} for row, origin in rows])
        return
    if not rows:
        typer.echo("no batch has been measured yet.")
        return
    _print_cells(rows[0][0])
    columns = ("batch", "of", ">rows", ">new %", ">duplicates", ">near", ">new runs %", ">entropy", ">features", "at")
    print_table(columns, (_cells(row, origin) for row, origin in rows), "Batches")


def _rows(session: Session, limit: int) -> list[tuple[CoverageRow, str]]:
    query = select(CoverageRow, BatchRow.origin).join(BatchRow, BatchRow.id == CoverageRow.batch_id)
    return [
        (row, origin) for row, origin in session.execute(query.order_by(CoverageRow.created_at.desc()).limit(limit))
    ]


def _print_cells(row: CoverageRow) -> None:
    columns = ("level", ">rows", ">share %", ">wanted %", ">gap %", "features, % of the rows", "absent")
    print_table(columns, map(_cell, row.numbers.get("cells", ())), f"Batch {row.batch_id[:6]}")


def _cell(cell: Mapping[str, Any]) -> tuple[object, ...]:
    rows = cell["rows"]
    features = ", ".join(f"{name} {100 * n / rows:.0f}" for name, n in cell.get("features", {}).items()) if rows else ""
    return (
        f"{cell['family']} {cell['level']}",
        rows,
        f"{100 * cell['share']:.1f}",
        f"{100 * cell['wanted']:.1f}",
        f"{100 * cell['gap']:.0f}" if cell["gap"] else "",
        features,
        ", ".join(cell.get("absent", ())),
    )


def _cells(row: CoverageRow, origin: str) -> tuple[object, ...]:
    numbers = row.numbers
    texts = numbers.get("texts") or {}
    runs, near = texts.get("runs", 0), texts.get("repeats", 0) + texts.get("known", 0)
    return (
        row.batch_id[:6],
        origin,
        f"{numbers.get('rows', 0):,}",
        f"{100 * numbers.get('novelty', 0.0):.0f}",
        f"{numbers.get('duplicates', 0):,}",
        f"{near} of {texts['compared']}" if texts.get("compared") else "",
        f"{100 * texts['new_runs'] / runs:.0f}" if runs else "",
        f"{numbers.get('entropy', 0.0):.2f}",
        f"{numbers.get('feature_entropy', 0.0):.2f}",
        clock(row.created_at),
    )
