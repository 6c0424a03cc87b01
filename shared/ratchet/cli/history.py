"""`ratchet history`: what was live when, and why."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Annotated

import typer

from ratchet.cli.output import Json, clock, duration, print_json, print_table
from ratchet.cli.place import opened
from ratchet.cli.view.words import plain
from ratchet.ledger.deployments import HistoryEntry, history


def show(
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="So many of the newest acts.")] = 30,
    as_json: Annotated[bool, Json] = False,
) -> None:
    """Every checkpoint that was live, from when to when and why, with freezes, lifted blocks and the like between."""
    with opened() as (_, ledger), ledger.read() as session:
        entries = history(session)[-limit:]
    if as_json:
        print_json([asdict(entry) for entry in entries])
        return
    now = time.time()
    rows = [
        (clock(e.at), e.action, e.actor, f"#{e.ordinal}", _lasted(e, now), plain(e.reason)) for e in reversed(entries)
    ]
    print_table(["when", "act", "by", "checkpoint", "for", "why"], rows)


def _lasted(entry: HistoryEntry, now: float) -> str:
    if not entry.changes_champion:
        return ""
    return duration((entry.until_at or now) - entry.at) + ("" if entry.until_at else " so far")
