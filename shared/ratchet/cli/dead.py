"""`ratchet dead`: list, show and retry the subjects that a system gave up."""

from __future__ import annotations

import getpass
from typing import Annotated, Any

import typer
from sqlalchemy import select

from ratchet.cli.output import MOST, Json, print_json, print_table, say
from ratchet.errors import PreconditionFailed
from ratchet.home import opened, wake
from ratchet.ledger.tables import DeadLetterRow
from ratchet.lines import first_line
from ratchet.systems import dead_letters
from ratchet.wording import clock

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="Dead letters: subjects that failed repeatedly and were set aside. Show them, and retry them.",
)

Id = Annotated[int, typer.Argument(metavar="ID", min=1, max=MOST, help="Its number in `ratchet dead list`.")]


@app.command("list")
def list_letters(
    everything: Annotated[bool, typer.Option("--all", help="Also those that were retried.")] = False,
    as_json: Annotated[bool, Json] = False,
) -> None:
    """List open dead letters, the newest first."""
    query = select(DeadLetterRow).order_by(DeadLetterRow.id.desc())
    with opened() as (_, ledger), ledger.read() as session:
        rows = session.scalars(query if everything else query.where(DeadLetterRow.resolved_at.is_(None))).all()
    if as_json:
        print_json([_as_values(row) for row in rows])
        return
    if not rows:
        say("no dead letters.")
        return
    table = (
        (row.id, clock(row.created_at), row.system, f"{row.subject_kind} {row.subject_id}", _first_line(row.error))
        for row in rows
    )
    print_table((">id", "when", "system", "subject", "error"), table)


@app.command()
def show(number: Id, as_json: Annotated[bool, Json] = False) -> None:
    """Show one with its error and traceback."""
    with opened() as (_, ledger), ledger.read() as session:
        row = session.get(DeadLetterRow, number)
    if row is None:
        raise PreconditionFailed(f"there is no dead letter {number}: `ratchet dead list --all`.")
    if as_json:
        print_json(_as_values(row))
        return
    say(f"{row.system} gave up {row.subject_kind} {row.subject_id} at {clock(row.created_at)}")
    say(f"after {row.failures} failures and {row.kills} crashes of its process: {row.error}")
    say(f"\n{row.traceback}" if row.traceback else "")
    say(row.resolution or f"`ratchet dead retry {row.id}` tries it again.")


@app.command()
def retry(number: Id) -> None:
    """Try one again, with its failure count reset."""
    with opened() as (settings, ledger):
        with ledger.write() as tx:
            letter = dead_letters.retry(tx, number, getpass.getuser())
        say(f"{letter.system} will try {letter.subject_kind} {letter.subject_id} again.")
        wake(settings, letter.system)


def _first_line(text: str) -> str:
    line = first_line(text)
    return line if len(line) <= 80 else line[:79] + "…"


def _as_values(row: DeadLetterRow) -> dict[str, Any]:
    return {
        "id": row.id,
        "system": row.system,
        "subject_kind": row.subject_kind,
        "subject_id": row.subject_id,
        "error": row.error,
        "traceback": row.traceback,
        "failures": row.failures,
        "kills": row.kills,
        "created_at": row.created_at,
        "resolved_at": row.resolved_at,
        "resolution": row.resolution,
    }
