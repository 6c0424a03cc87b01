"""`ratchet drill rollback`: asks the deployment worker for a drill, and shows how it goes.

The worker carries it out, because it holds the claim under which alone the inference server is changed.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Annotated, Any

import typer
from sqlalchemy import select
from sqlalchemy.orm import Session

from ratchet.cli.output import Json, print_json, print_table, say
from ratchet.errors import PreconditionFailed
from ratchet.home import opened, wake
from ratchet.ledger import Ledger, drills
from ratchet.ledger.health import PRESENT_S, is_expected
from ratchet.ledger.ledger import clock
from ratchet.ledger.pending import settled
from ratchet.ledger.tables import DrillRow, WorkerRow

SYSTEM = "deployment"
LOOK_EVERY_S = 0.5

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="Rehearse what nobody wants to try for the first time in an emergency. Clients see none of it.",
)


@app.callback()
def group() -> None:
    """Keep `rollback` a command of a group: typer makes one command of a group of one."""


@app.command()
def rollback(
    reason: Annotated[str, typer.Option("--reason", "-r", help="Why; recorded in the ledger.")] = "a regular drill",
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until the drill has ended.")] = True,
    as_json: Annotated[bool, Json] = False,
) -> None:
    """Plant a bad checkpoint beside the champion, and see that the canary catches it.

    A copy of the champion with one damaged weight matrix is loaded into the inference server; the canary has to refuse
    it; then it is unloaded, and the champion switched to as in a rollback. The champion answers all the time. Exit
    code: 0 caught, 1 not caught or failed. Ctrl-C ends the waiting, not the drill.
    """
    with opened() as (settings, ledger):
        with ledger.write() as tx:
            row, is_new = drills.request(tx, "operator", reason)
        if not as_json:
            said = "is requested" if is_new else "was requested before, and has not ended"
            say(f"drill {row.id} {said}.")
        wake(settings, SYSTEM)
        if wait:
            row = _followed(ledger, row.id, is_quiet=as_json)
    if as_json:
        print_json(as_dict(row))
    elif wait:
        _show(row)
    if wait and row.outcome != "caught":
        raise typer.Exit(1)


def as_dict(row: DrillRow) -> dict[str, Any]:
    """All that is known of a drill, for scripts."""
    return {column.name: getattr(row, column.name) for column in DrillRow.__table__.columns}


def _followed(ledger: Ledger, drill_id: int, *, is_quiet: bool) -> DrillRow:
    """Print news of the drill until it has ended. Raises PreconditionFailed if it was given up."""
    said = set[str]()
    while True:
        with ledger.read() as session:
            row = drills.drill(session, drill_id)
            is_dead = row.finished_at is None and settled(session, SYSTEM, [(drills.KIND, str(drill_id))])
            is_present = _has_worker(session)
        for text in () if is_quiet else _news(row, is_present=is_present):
            if text not in said:
                said.add(text)
                say(text)
        if row.finished_at is not None:
            return row
        if is_dead:
            raise PreconditionFailed(f"drill {drill_id} was given up after errors: `ratchet dead list` shows them.")
        time.sleep(LOOK_EVERY_S)


def _news(row: DrillRow, *, is_present: bool) -> Iterator[str]:
    if row.finished_at is None and not is_present:
        yield "  no deployment worker is running; the drill begins as soon as there is one."
    if row.waiting_for is not None:
        yield f"  it waits for {row.waiting_for}."
    for name, took_s in row.steps.items():
        yield f"  {name}: {took_s:.1f} s"


def _has_worker(session: Session) -> bool:
    """Whether a worker that can carry out the drill was seen within two minutes."""
    seen = (WorkerRow.system == SYSTEM, is_expected(), WorkerRow.seen_at > clock(session) - PRESENT_S)
    return session.scalar(select(WorkerRow.name).where(*seen).limit(1)) is not None


def _show(row: DrillRow) -> None:
    say()
    steps = [(name, f"{took_s:.2f}", drills.STEPS.get(name, "")) for name, took_s in row.steps.items()]
    print_table(("step", ">seconds", "what"), steps)
    say()
    say(f"{row.outcome}: {row.detail}")
    if row.before_id is not None:
        before, after = _named(row.before_id, row.before_weights), _named(row.after_id, row.after_weights)
        say(f"live before: {before}; after: {after}.")


def _named(checkpoint_id: str | None, weights: str | None) -> str:
    return "nothing" if checkpoint_id is None else f"{checkpoint_id} with weights {str(weights)[:12]}…"
