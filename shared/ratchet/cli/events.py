"""`ratchet events`: the events in the ledger's outbox, the newest last."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from typing import Annotated, Any

import typer
from sqlalchemy import Select, select

from ratchet.cli.output import Json, clock
from ratchet.cli.place import opened
from ratchet.errors import PreconditionFailed
from ratchet.events import CATALOGUE
from ratchet.ledger import Ledger
from ratchet.ledger.tables import OutboxRow

EVERY_S = 0.5
ENVELOPE = ("id", "at", "cause", "name", "major")
"""Fields that every event has; a printed line shows the others."""


def events(
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="How many of the newest.")] = 30,
    name: Annotated[str | None, typer.Option(help="Only this event, as checkpoint.saved.")] = None,
    cause: Annotated[
        str | None, typer.Option(metavar="ID", help="Only events caused by the event whose id begins like this.")
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as events come; Ctrl-C ends.")] = False,
    as_json: Annotated[bool, Json] = False,
) -> None:
    """List events from the ledger's outbox, the newest last. With --json one object a line."""
    if name is not None and name not in CATALOGUE:
        raise PreconditionFailed(f"no event is called {name!r}; there are: {', '.join(CATALOGUE)}.")
    query = select(OutboxRow)
    if name is not None:
        query = query.where(OutboxRow.name == name)
    if cause is not None:
        query = query.where(OutboxRow.cause.startswith(cause, autoescape=True))
    with opened() as (_, ledger):
        with ledger.read() as session:
            rows = session.scalars(query.order_by(OutboxRow.seq.desc()).limit(limit)).all()[::-1]
        _print(rows, as_json)
        if follow:
            _follow(ledger, query.order_by(OutboxRow.seq), rows[-1].seq if rows else 0, as_json)


def _follow(ledger: Ledger, query: Select[OutboxRow], seq: int, as_json: bool) -> None:
    """Print the rows of the query after ``seq`` as they come."""
    while True:
        try:
            time.sleep(EVERY_S)
        except KeyboardInterrupt:
            return
        with ledger.read() as session:
            rows = session.scalars(query.where(OutboxRow.seq > seq)).all()
        _print(rows, as_json)
        seq = rows[-1].seq if rows else seq


def _print(rows: Iterable[OutboxRow], as_json: bool) -> None:
    for row in rows:
        typer.echo(row.body if as_json else _line(row))


def _line(row: OutboxRow) -> str:
    fields: dict[str, Any] = json.loads(row.body)
    said = " ".join(f"{key}={value}" for key, value in fields.items() if key not in ENVELOPE)
    waiting = "" if row.relayed_at is not None else "  (not relayed yet)"
    return f"{clock(row.created_at)} {row.event_id[:8]} {row.name:<24} {said}{waiting}"
