"""`ratchet events --trace`: the story of an event, a checkpoint or a batch, from the need to what came of it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import typer
from sqlalchemy import select
from sqlalchemy.orm import Session

from ratchet.cli import naming
from ratchet.cli.output import clock
from ratchet.cli.view.happenings import Names
from ratchet.errors import PreconditionFailed
from ratchet.events.lineage import DEPLOYED, Lineage, Node, Told
from ratchet.ledger.tables import Batch, Checkpoint, Outbox

ENVELOPE = ("id", "at", "cause", "name", "major")
SHORTEST_ID = 6
_MADE_FROM = {
    "mined": ("examples.mined", "checkpoint_id"),
    "curriculum": ("curriculum.changed", "curriculum_id"),
    "fork": ("fork.opened", "fork_id"),
}


def print_story(session: Session, wanted: str, *, as_json: bool) -> None:
    """Print the story of what ``wanted`` names. Raises PreconditionFailed where nothing is called so."""
    history = [_told(row) for row in session.scalars(select(Outbox).order_by(Outbox.seq))]
    asked = _find(session, history, wanted)
    lineage = Lineage(history, _made_from(session), _parents(session))
    names = Names(session)
    for depth, node in lineage.story(asked).walk():
        typer.echo(_as_json(depth, node) if as_json else _line(depth, node, names))


def _told(row: Outbox) -> Told:
    fields = {key: value for key, value in json.loads(row.body).items() if key not in ENVELOPE}
    return Told(row.event_id, row.name, row.created_at, row.cause, fields)


def _find(session: Session, history: Sequence[Told], wanted: str) -> Told:
    """The event of that id, or the one that tells most of a checkpoint or a batch of that name."""
    if len(wanted) >= SHORTEST_ID and (by_id := next((e for e in history if e.id.startswith(wanted)), None)):
        return by_id
    batch = next(
        (e for e in history if e.name == "batch.submitted" and _begins(str(e.fields["batch_id"]), wanted)), None
    )
    if batch is not None:
        return batch
    checkpoint = naming.find(session, wanted)
    of_it = [e for e in history if e.fields.get("checkpoint_id") == checkpoint.id]
    for name in (DEPLOYED, "checkpoint.saved"):
        if found := next((e for e in of_it if e.name == name), None):
            return found
    raise PreconditionFailed(
        f"nothing has been said of {naming.label(checkpoint)} yet; `ratchet events` lists what has."
    )


def _begins(batch_id: str, wanted: str) -> bool:
    return len(wanted) >= SHORTEST_ID and batch_id.startswith(wanted)


def _made_from(session: Session) -> dict[str, list[tuple[str, str, str]]]:
    """By batch: the events that its provenance names."""
    found: dict[str, list[tuple[str, str, str]]] = {}
    for batch_id, provenance in session.execute(select(Batch.id, Batch.provenance)):
        for parent in provenance.get("parents") or ():
            kind, _, key = str(parent).partition(":")
            if kind in _MADE_FROM:
                found.setdefault(batch_id, []).append((*_MADE_FROM[kind], key))
    return found


def _parents(session: Session) -> dict[str, str]:
    rows = session.execute(
        select(Checkpoint.id, Checkpoint.parent_id)
        .where(Checkpoint.parent_id.is_not(None))
        .order_by(Checkpoint.ordinal)
    )
    return {row.id: str(row.parent_id) for row in rows}


def _as_json(depth: int, node: Node) -> str:
    event = node.event
    return json.dumps(
        {"depth": depth, "asked": node.asked, "id": event.id, "name": event.name, "at": event.at, **event.fields},
        ensure_ascii=False,
    )


def _line(depth: int, node: Node, names: Names) -> str:
    event = node.event
    mark = "> " if node.asked else "  "
    return f"{mark}{clock(event.at)} {event.id[:8]} {'  ' * depth}{event.name}  {_said(event.fields, names)}".rstrip()


def _said(fields: Mapping[str, Any], names: Names) -> str:
    """The fields of an event with its subjects by name: ``#5, step 375``."""
    parts = []
    for key, value in fields.items():
        kind = "batch" if key == "batch_id" else "checkpoint" if key.endswith("checkpoint_id") else ""
        if value is None:
            continue
        if kind:
            parts.append(names.of(kind, str(value)))
        elif key == "previous_id":
            parts.append(f"over {names.of('checkpoint', str(value))}")
        elif isinstance(value, list | tuple):
            parts.append(" and ".join(map(str, value)))
        else:
            parts.append(
                f"{key.removesuffix('_id').replace('_', ' ')} {str(value)[:12] if key.endswith('_id') else value}"
            )
    return ", ".join(parts)
