"""`ratchet suite`: what checkpoints are tested on."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from ratchet.cli import naming
from ratchet.cli.doorbell import ring
from ratchet.cli.output import Json, clock, print_json, print_table
from ratchet.cli.place import opened
from ratchet.errors import PreconditionFailed
from ratchet.ledger.suites import evaluation, request_evaluation, suite_named
from ratchet.ledger.tables import EvaluationRow, SuiteRow

app = typer.Typer(
    no_args_is_help=True,
    help="Show what checkpoints are tested on, and have one tested on a suite.",
)


@app.command("list")
def list_suites(as_json: Annotated[bool, Json] = False) -> None:
    """List the suites: those in force, and those that were rotated out."""
    with opened() as (_, ledger), ledger.read() as session:
        rows = [_values(session, row) for row in session.scalars(select(SuiteRow).order_by(SuiteRow.created_at))]
    if as_json:
        print_json(rows)
        return
    columns = ("suite", "pool", ">version", ">items", ">records", ">challenges", "made", "retired")
    print_table(
        columns, ([*list(row.values())[:6], clock(row["created_at"]), clock(row["retired_at"])] for row in rows)
    )


@app.command()
def run(
    suite: Annotated[str, typer.Argument(help="The beginning of its id, or eval, probe or confirm.")],
    checkpoint: Annotated[str, typer.Argument(help="Its number, the beginning of its id, champion, newest or base.")],
) -> None:
    """Ask testing to run a checkpoint over a suite; a running loop does it."""
    with opened() as (settings, ledger):
        with ledger.write() as tx:
            row, found = suite_named(tx.session, suite), naming.find(tx.session, checkpoint)
            if row.pool == "confirm":
                raise PreconditionFailed(
                    "a confirm suite is opened by a challenge alone: every other look wears it out."
                )
            if evaluation(tx.session, found.id, row.id) is not None:
                raise PreconditionFailed(
                    f"{found.id} has a record on that suite already: `ratchet flips` compares two."
                )
            request_evaluation(tx, found.id, row.id, "user", found.id)
        ring(settings, "testing")
    typer.echo(f"testing is asked for {found.id} on suite {row.id[:12]} ({row.items} items).")


def _values(session: Session, row: SuiteRow) -> dict[str, Any]:
    records = (
        session.scalar(select(func.count()).select_from(EvaluationRow).where(EvaluationRow.suite_id == row.id)) or 0
    )
    return {
        "suite": row.id[:12],
        "pool": row.pool,
        "version": row.ordinal,
        "items": row.items,
        "records": records,
        "challenges": row.uses,
        "created_at": row.created_at,
        "retired_at": row.retired_at,
    }
