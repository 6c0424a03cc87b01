"""`ratchet mined`: what each checkpoint was found weak on, and whether the next one still is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer
from sqlalchemy import select
from sqlalchemy.orm import Session

from ratchet.cli.output import Json, clock, print_json, print_table
from ratchet.cli.place import opened
from ratchet.ledger.tables import CheckpointRow, MinedRow


def mined(
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="How many checkpoints to list.")] = 15,
    as_json: Annotated[bool, Json] = False,
) -> None:
    """List what mining found, the newest checkpoint first.

    `still failed` is what a checkpoint got wrong of the set mined from the one before, beside as many random items of
    the same families and levels; the range holds the difference with 95 % probability. If it holds 0, mining is not
    shown to beat chance there. `ratchet mined --json` has the yield of every arm of the search.
    """
    with opened() as (_, ledger), ledger.read() as session:
        rows = _rows(session, limit)
    if as_json:
        print_json([_as_values(row, ordinal) for row, ordinal in rows])
        return
    if not rows:
        typer.echo("nothing has been mined yet: mining waits for the first evaluated checkpoint.")
        return
    columns = ("", ">mined", "categories", ">asked", "best arm", "still failed", "against random, points", "at")
    print_table(columns, (_cells(row, ordinal) for row, ordinal in rows))


def _rows(session: Session, limit: int) -> list[tuple[MinedRow, int]]:
    query = select(MinedRow, CheckpointRow.ordinal).join(CheckpointRow, CheckpointRow.id == MinedRow.checkpoint_id)
    return [
        (row, ordinal) for row, ordinal in session.execute(query.order_by(CheckpointRow.ordinal.desc()).limit(limit))
    ]


def _cells(row: MinedRow, ordinal: int) -> tuple[object, ...]:
    numbers = row.numbers or {}
    categories = ", ".join(f"{count} {name}" for name, count in sorted(row.by_category.items()))
    told = numbers.get("follow_up")
    return (
        f"#{ordinal}",
        row.count,
        categories,
        numbers.get("asked", 0),
        _best_arm(numbers.get("yields", {})),
        _failed(told) if told else "",
        _excess(told) if told else "",
        clock(row.created_at),
    )


def _best_arm(yields: Mapping[str, Any]) -> str:
    if not yields:
        return ""
    name, (weak, asked) = max(yields.items(), key=lambda pair: (pair[1][0] / max(pair[1][1], 1), pair[1][1]))
    return f"{name}: {weak} of {asked}"


def _failed(told: Mapping[str, Any]) -> str:
    return f"{told['mined_failed']} of {told['mined']} mined, {told['random_failed']} of {told['random']} random"


def _excess(told: Mapping[str, Any]) -> str:
    return f"{100 * told['excess']['low']:+.0f} to {100 * told['excess']['high']:+.0f}"


def _as_values(row: MinedRow, ordinal: int) -> dict[str, Any]:
    return {
        "checkpoint_id": row.checkpoint_id,
        "ordinal": ordinal,
        "count": row.count,
        "by_category": row.by_category,
        "artifact": row.artifact,
        "created_at": row.created_at,
        **(row.numbers or {}),
    }
