"""`ratchet events`: the events in the ledger's outbox, the newest last."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session

from ratchet.cli.output import MOST, Json, say, say_json
from ratchet.errors import PreconditionFailed
from ratchet.events import CATALOGUE
from ratchet.home import opened
from ratchet.ledger import Ledger
from ratchet.ledger.tables import OutboxRow
from ratchet.settings import load
from ratchet.views import log_lines
from ratchet.views.journal import why_missing
from ratchet.wording import clock

EVERY_S = 0.5
SEARCHED = 200_000
"""Events that are searched for a name, from the newest."""
ENVELOPE = ("id", "at", "cause", "name", "major")
"""Fields that every event has; a printed line shows the others."""


def events(
    limit: Annotated[
        int, typer.Option("--limit", "-n", min=1, max=MOST, help="How many to list, from the newest.")
    ] = 30,
    name: Annotated[str | None, typer.Option(help="Only events of this name, such as checkpoint.saved.")] = None,
    cause: Annotated[
        str | None, typer.Option(metavar="ID", help="Only events caused by the event whose id begins with this.")
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Keep printing new events until Ctrl-C.")] = False,
    as_json: Annotated[bool, Json] = False,
) -> None:
    """List events from the ledger's outbox, the newest last. With --json, one object per line."""
    if name is not None and name not in CATALOGUE:
        raise PreconditionFailed(f"there is no event {name!r}; there are: {', '.join(CATALOGUE)}.")
    query = select(OutboxRow)
    if name is not None:
        query = query.where(OutboxRow.name == name)
    if cause is not None:
        query = query.where(OutboxRow.cause >= cause, OutboxRow.cause < f"{cause}g")  # ids are hexadecimal
    with opened() as (settings, ledger):
        with ledger.read() as session:
            rows, notes = _newest(session, query, limit, is_caused=cause is not None, is_named=name is not None)
            if len(rows) < limit:
                notes.append(why_missing(session, settings))
        _print(rows, as_json)
        for note in filter(None, notes):
            say(note, err=True)
        if follow:
            _follow(ledger, query.order_by(OutboxRow.seq), rows[-1].seq if rows else 0, as_json)


def _newest(
    session: Session, query: Select[OutboxRow], limit: int, *, is_caused: bool, is_named: bool
) -> tuple[Sequence[OutboxRow], list[str]]:
    """The newest events of the query, the newest last, and a note if the older ones were not searched.

    Names have no index, so of a long outbox only the newest part is searched for one. Causes have.
    """
    order = OutboxRow.seq.desc()
    if is_caused:
        order = (OutboxRow.seq + 0).desc()  # of an expression, so that the index of causes is used and not the order
    elif is_named and (first := int(session.scalar(select(func.max(OutboxRow.seq))) or 0) - SEARCHED) > 0:
        rows = session.scalars(query.where(OutboxRow.seq > first).order_by(order).limit(limit)).all()[::-1]
        at = session.scalar(select(OutboxRow.created_at).where(OutboxRow.seq > first).order_by(OutboxRow.seq).limit(1))
        if len(rows) < limit and at is not None:
            return rows, [f"The newest {SEARCHED:,} events were searched, back to {clock(at)}; the Journal goes on."]
        return rows, []
    return session.scalars(query.order_by(order).limit(limit)).all()[::-1], []


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
        say_json(row.body) if as_json else say(_line(row))


def _line(row: OutboxRow) -> str:
    fields: dict[str, Any] = json.loads(row.body)
    text = " ".join(f"{key}={value}" for key, value in fields.items() if key not in ENVELOPE)
    waiting = "" if row.relayed_at is not None else "  (not relayed yet)"
    return f"{clock(row.created_at)} {row.event_id[:8]} {row.name:<24} {text}{waiting}"


def logs(
    system: Annotated[str | None, typer.Argument(help="A system, such as testing. Default: all.")] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="How many lines of each file.")] = 30,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Keep printing new lines until Ctrl-C.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the lines as they were written.")] = False,
) -> None:
    """Show the logs of a system's workers and model processes on this machine."""
    folder = load().log_folder
    files = log_lines.log_files(folder, system)
    ends = {}
    for file in files:
        lines, ends[file] = log_lines.tail(file, limit)
        _print_lines(file, lines, as_json, several=len(files) > 1)
    while follow:
        try:
            time.sleep(EVERY_S)
        except KeyboardInterrupt:
            return
        for file in log_lines.log_files(folder, system):
            lines, ends[file] = log_lines.since(file, ends.get(file, 0))
            _print_lines(file, lines, as_json, several=True)


def _print_lines(file: Path, lines: list[str], as_json: bool, *, several: bool) -> None:
    name = f"{file.stem.split('@')[0]:<12} " if several else ""
    for line in lines:
        say_json(line) if as_json else say(name + log_lines.read_line(line).readable)
