"""`ratchet events`: what was said, the newest last; with --trace the story of one thing."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from typing import Annotated, Any

import typer
from sqlalchemy import select

from ratchet.cli.output import Json, clock
from ratchet.cli.place import opened
from ratchet.cli.trace import ENVELOPE, print_story
from ratchet.errors import PreconditionFailed
from ratchet.events import CATALOGUE
from ratchet.ledger import Ledger
from ratchet.ledger.tables import Outbox

EVERY_S = 0.5


def events(
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="How many of the newest.")] = 30,
    name: Annotated[str | None, typer.Option(help="Only this event, as checkpoint.saved.")] = None,
    trace: Annotated[
        str | None,
        typer.Option(
            metavar="ID", help="The story of an event, a checkpoint or a batch: what led to it, what came of it."
        ),
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as events come; Ctrl-C ends.")] = False,
    as_json: Annotated[bool, Json] = False,
) -> None:
    """List events from the ledger's outbox, the newest last. With --json one object a line."""
    if name is not None and name not in CATALOGUE:
        raise PreconditionFailed(f"no event is called {name!r}; there are: {', '.join(CATALOGUE)}.")
    with opened() as (_, ledger):
        if trace is not None:
            with ledger.read() as session:
                print_story(session, trace, as_json=as_json)
            return
        rows = _newest(ledger, name, limit)
        _print(rows, as_json)
        if follow:
            _follow(ledger, name, rows[-1].seq if rows else 0, as_json)


def _newest(ledger: Ledger, name: str | None, limit: int) -> list[Outbox]:
    query = select(Outbox).order_by(Outbox.seq.desc()).limit(limit)
    with ledger.read() as session:
        rows = session.scalars(query if name is None else query.where(Outbox.name == name)).all()
    return list(reversed(rows))


def _follow(ledger: Ledger, name: str | None, seq: int, as_json: bool) -> None:
    while True:
        try:
            time.sleep(EVERY_S)
        except KeyboardInterrupt:
            return
        query = select(Outbox).where(Outbox.seq > seq).order_by(Outbox.seq)
        with ledger.read() as session:
            rows = session.scalars(query if name is None else query.where(Outbox.name == name)).all()
        _print(rows, as_json)
        seq = rows[-1].seq if rows else seq


def _print(rows: Iterable[Outbox], as_json: bool) -> None:
    for row in rows:
        typer.echo(row.body if as_json else _line(row))


def _line(row: Outbox) -> str:
    fields: dict[str, Any] = json.loads(row.body)
    said = " ".join(f"{key}={value}" for key, value in fields.items() if key not in ENVELOPE)
    waiting = "" if row.relayed_at is not None else "  (not relayed yet)"
    return f"{clock(row.created_at)} {row.event_id[:8]} {row.name:<24} {said}{waiting}"
