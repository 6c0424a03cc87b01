"""`ratchet events`: what was said, by whom it was caused, and what it caused."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Sequence
from typing import Annotated, Any

import typer
from sqlalchemy import select
from sqlalchemy.orm import Session

from ratchet.cli.output import Json, clock
from ratchet.cli.place import opened
from ratchet.errors import Refused
from ratchet.events import CATALOGUE
from ratchet.ledger import Ledger
from ratchet.ledger.tables import Outbox

EVERY_S = 0.5
ENVELOPE = ("id", "at", "cause", "name", "major")


def events(
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="How many of the newest.")] = 30,
    name: Annotated[str | None, typer.Option(help="Only this event, as checkpoint.saved.")] = None,
    trace: Annotated[
        str | None, typer.Option(metavar="ID", help="The whole story of one event: its causes and effects, as a tree.")
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as events come; Ctrl-C ends.")] = False,
    as_json: Annotated[bool, Json] = False,
) -> None:
    """List events from the ledger's outbox, the newest last. With --json one object a line."""
    if name is not None and name not in CATALOGUE:
        raise Refused(f"no event is called {name!r}; there are: {', '.join(CATALOGUE)}.")
    with opened() as (_, ledger):
        if trace is not None:
            with ledger.read() as session:
                _print_tree(_story(session, trace), as_json)
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


def _story(session: Session, wanted: str) -> dict[str | None, list[Outbox]]:
    """All events of the tree that the wanted one stands in, by cause; the root's cause is None."""
    prefix = Outbox.event_id.startswith(wanted, autoescape=True)
    row = session.scalar(select(Outbox).where(prefix).limit(1))
    if row is None:
        raise Refused(f"no event's id begins with {wanted!r}; `ratchet events` lists them.")
    while row.cause and (parent := session.scalar(select(Outbox).where(Outbox.event_id == row.cause))) is not None:
        row = parent
    tree: dict[str | None, list[Outbox]] = {None: [row]}
    generation: Sequence[Outbox] = [row]
    while generation:
        causes = [event.event_id for event in generation]
        generation = session.scalars(select(Outbox).where(Outbox.cause.in_(causes)).order_by(Outbox.seq)).all()
        for event in generation:
            tree.setdefault(event.cause, []).append(event)
    return tree


def _print(rows: Iterable[Outbox], as_json: bool, indent: str = "") -> None:
    for row in rows:
        typer.echo(row.body if as_json else indent + _line(row))


def _print_tree(tree: dict[str | None, list[Outbox]], as_json: bool, cause: str | None = None, depth: int = 0) -> None:
    for row in tree.get(cause, ()):
        _print([row], as_json, "  " * depth)
        _print_tree(tree, as_json, row.event_id, depth + 1)


def _line(row: Outbox) -> str:
    fields: dict[str, Any] = json.loads(row.body)
    said = " ".join(f"{key}={value}" for key, value in fields.items() if key not in ENVELOPE)
    waiting = "" if row.relayed_at is not None else "  (not relayed yet)"
    return f"{clock(row.created_at)} {row.event_id[:8]} {row.name:<24} {said}{waiting}"
