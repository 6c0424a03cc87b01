"""`ratchet queue`: list the batches, and skip one; `queue add` is `data add`."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from sqlalchemy import select
from sqlalchemy.orm import Session

from ratchet.cli.data import add
from ratchet.cli.output import Json, print_json, print_table, say
from ratchet.home import opened
from ratchet.ledger import operator_actions
from ratchet.ledger.queue import depth, low_mark, shortage, supply
from ratchet.ledger.tables import BatchRow
from ratchet.views.batches import OPEN, find_batch, priority
from ratchet.wording import clock

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="Show what waits for training, and take a batch out.",
)


@app.command("list")
def list_batches(
    everything: Annotated[bool, typer.Option("--all", help="Also batches that are done.")] = False,
    as_json: Annotated[bool, Json] = False,
) -> None:
    """List batches: first the running one, then the waiting ones by priority."""
    with opened() as (settings, ledger), ledger.read() as session:
        rows = _batches(session, everything)
        waiting, left = depth(session), supply(session)
    if as_json:
        print_json(
            {
                "depth": waiting.total,
                "tokens": left.tokens,
                "minutes": left.minutes,
                "low": shortage(left, low_mark(settings)),
                "batches": [_as_values(row) for row in rows],
            }
        )
        return
    columns = ("batch", "of", "state", "priority", ">examples", ">trained", ">quarantined", "submitted")
    print_table(columns, (_row(row) for row in rows))
    say(
        f"depth {waiting.total:,} examples (low water {low_mark(settings):,}, "
        f"high water {settings.queue.high_water:,}): {waiting.running:,} in the running batch, "
        f"{waiting.queued:,} queued, {waiting.submitted:,} before the gate. About {left.tokens:,} tokens"
        + (f", {left.minutes:.1f} minutes of training." if left.minutes is not None else ".")
    )


app.command("add", help="The same as `ratchet data add`.")(add)


@app.command()
def skip(batch: Annotated[str, typer.Argument(help="The beginning of its id.")]) -> None:
    """Take a batch out of the queue. It is kept, but training on it ends."""
    with opened() as (_, ledger):
        with ledger.write() as tx:
            row = find_batch(tx.session, batch)
            operator_actions.skip(tx, row)
        say(f"batch {row.id} is skipped.")


def _batches(session: Session, everything: bool) -> list[BatchRow]:
    query = select(BatchRow).order_by(BatchRow.submitted_at)
    rows = session.scalars(query if everything else query.where(BatchRow.state.in_(OPEN))).all()
    place = {state: number for number, state in enumerate(OPEN)}
    return sorted(rows, key=lambda row: (place.get(row.state, len(OPEN)), row.priority, row.submitted_at))


def _row(row: BatchRow) -> tuple[object, ...]:
    return (
        row.id,
        row.task or row.origin,
        row.state,
        priority(row),
        f"{row.examples or row.submitted_examples:,}",
        f"{row.offset:,}",
        f"{row.quarantined:,}",
        clock(row.submitted_at),
    )


def _as_values(row: BatchRow) -> dict[str, Any]:
    return {
        "batch_id": row.id,
        "origin": row.origin,
        "state": row.state,
        "priority": priority(row),
        "submitted_examples": row.submitted_examples,
        "examples": row.examples,
        "trained": row.offset,
        "quarantined": row.quarantined,
        "report": row.report,
        "submitted_at": row.submitted_at,
    }
