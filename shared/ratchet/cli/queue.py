"""`ratchet queue`: list the batches, add your own data, and skip a batch."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from sqlalchemy import select
from sqlalchemy.orm import Session

from ratchet.cli.context import artifacts, opened, wake
from ratchet.cli.output import Json, clock, print_json, print_table
from ratchet.data.example import Provenance
from ratchet.data.jsonl import examples_of
from ratchet.errors import DataError, PreconditionFailed
from ratchet.ledger import operator_actions
from ratchet.ledger.queue import PRIORITIES, depth, shortage, submit, supply
from ratchet.ledger.tables import BatchRow
from ratchet.settings import Settings
from ratchet.user_files import open_regular, printable

Priority = Literal["high", "normal", "low"]
ROWS = "rows.jsonl"
MOST_SHOWN = 20
OPEN = ("training", "queued", "submitted")

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="Show what waits for training, and add your own data. It passes the same gate as generated data.",
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
                "low": shortage(left, settings.queue),
                "batches": [_as_values(row) for row in rows],
            }
        )
        return
    columns = ("batch", "origin", "state", "priority", ">examples", ">trained", ">quarantined", "submitted")
    print_table(columns, (_row(row) for row in rows))
    typer.echo(
        f"depth {waiting.total:,} examples (low water {settings.queue.low_water:,}, "
        f"high water {settings.queue.high_water:,}): {waiting.running:,} in the running batch, "
        f"{waiting.queued:,} queued, {waiting.submitted:,} before the gate. About {left.tokens:,} tokens"
        + (f", {left.minutes:.1f} minutes of training." if left.minutes is not None else ".")
    )


@app.command()
def add(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, readable=True, help="A JSONL file.")],
    priority: Annotated[Priority, typer.Option(help="Its place among the other batches.")] = "normal",
    as_json: Annotated[bool, Json] = False,
) -> None:
    """Queue a JSONL file with one example per line, in any known shape (`ratchet init --help`).

    Unreadable rows are listed with their line numbers; the gate quarantines them and takes the rest.
    """
    with opened() as (settings, ledger):
        found = _published(settings, file)
        provenance = Provenance(generator="file", version="1", parents=(printable(file.name),))
        with ledger.write() as tx:
            event = submit(tx, found.artifact_id, found.rows, "user", provenance.model_dump(mode="json"), priority)
            tx.emit(event)
        wake(settings, "correction")
    if as_json:
        counted = {"rows": found.rows, "unreadable": found.unreadable}
        print_json({"batch_id": event.batch_id, **counted, "priority": priority})
        return
    typer.echo(
        f"batch {event.batch_id}: {found.rows:,} rows wait for the gate, {found.unreadable:,} of them unreadable."
    )


@app.command()
def skip(batch: Annotated[str, typer.Argument(help="The beginning of its id.")]) -> None:
    """Take a batch out of the queue. It is kept, but training on it ends."""
    with opened() as (_, ledger):
        with ledger.write() as tx:
            row = _find(tx.session, batch)
            operator_actions.skip(tx, row)
        typer.echo(f"batch {row.id} is skipped.")


@dataclass(frozen=True)
class _Published:
    artifact_id: str
    rows: int
    unreadable: int


def _published(settings: Settings, file: Path) -> _Published:
    """Publish the file as a batch artifact. It is read only once, so that the gate reads the rows that were counted
    here.

    Raises DataError for what is not a file, and PreconditionFailed for a file without a readable row.
    """
    settings.work_folder.mkdir(parents=True, exist_ok=True)
    with open_regular(file) as source, tempfile.TemporaryDirectory(dir=settings.work_folder) as folder:
        rows, unreadable = 0, 0
        with open(Path(folder) / ROWS, "wb") as copy:
            for _, row in examples_of(source, file.name, copy):
                rows += 1
                if isinstance(row, DataError):
                    unreadable += 1
                    if unreadable <= MOST_SHOWN:
                        typer.echo(f"  {row}", err=True)
        if unreadable > MOST_SHOWN:
            typer.echo(f"  … and {unreadable - MOST_SHOWN:,} more", err=True)
        if rows == unreadable:
            raise PreconditionFailed(f"{printable(file)} has no readable row; nothing was queued.")
        provenance = {"file": printable(file.name)}
        artifact = artifacts(settings).publish(Path(folder) / ROWS, "batch", provenance, consume=True)
    return _Published(artifact.id, rows, unreadable)


def _find(session: Session, name: str) -> BatchRow:
    rows = session.scalars(select(BatchRow).where(BatchRow.id.startswith(name, autoescape=True)).limit(2)).all()
    if len(rows) != 1:
        raise PreconditionFailed(
            f"{'no batch' if not rows else 'more than one batch'} begins with {name!r}: `ratchet queue list`."
        )
    return rows[0]


def _batches(session: Session, everything: bool) -> list[BatchRow]:
    query = select(BatchRow).order_by(BatchRow.submitted_at)
    rows = session.scalars(query if everything else query.where(BatchRow.state.in_(OPEN))).all()
    place = {state: number for number, state in enumerate(OPEN)}
    return sorted(rows, key=lambda row: (place.get(row.state, len(OPEN)), row.priority, row.submitted_at))


def _row(row: BatchRow) -> tuple[object, ...]:
    return (
        row.id,
        row.origin,
        row.state,
        _priority(row),
        f"{row.examples or row.submitted_examples:,}",
        f"{row.offset:,}",
        f"{row.quarantined:,}",
        clock(row.submitted_at),
    )


def _priority(row: BatchRow) -> str:
    return next((name for name, number in PRIORITIES.items() if number == row.priority), str(row.priority))


def _as_values(row: BatchRow) -> dict[str, Any]:
    return {
        "batch_id": row.id,
        "origin": row.origin,
        "state": row.state,
        "priority": _priority(row),
        "submitted_examples": row.submitted_examples,
        "examples": row.examples,
        "trained": row.offset,
        "quarantined": row.quarantined,
        "report": row.report,
        "submitted_at": row.submitted_at,
    }
