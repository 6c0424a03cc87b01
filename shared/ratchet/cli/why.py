"""`ratchet why CHECKPOINT`: every decision about it, with its numbers."""

from __future__ import annotations

from typing import Annotated

import typer

from ratchet.cli.output import Json, print_json, say
from ratchet.home import opened
from ratchet.views.checkpoint_names import checkpoint_folder, find_checkpoint
from ratchet.views.verdict_numbers import lines
from ratchet.views.verdicts import Entry, explain, headline
from ratchet.views.view_model import plain


def why(
    checkpoint: Annotated[
        str, typer.Argument(help="Its number (7), the beginning of its id, champion, newest, previous or base.")
    ],
    numbers: Annotated[bool, typer.Option("--numbers", help="Also print all numbers of each verdict.")] = False,
    as_json: Annotated[bool, Json] = False,
) -> None:
    """Explain why a checkpoint is, or is not, live: each system's verdict, with its numbers.

    A checkpoint can also be named as champion, newest, previous or base.
    """
    with opened() as (settings, ledger), ledger.read() as session:
        found = find_checkpoint(session, checkpoint)
        explained = explain(session, found)
        text = headline(session, found)
        folder = checkpoint_folder(settings, found)
    if as_json:
        about = {"checkpoint_id": found.id, "ordinal": found.ordinal, "headline": text, "folder": folder}
        print_json({**about, **explained})
        return
    say(text)
    if folder is not None:
        say(f"files: {folder}")
    for section, rows in explained.items():
        if rows:
            say(f"\n{section.replace('_', ' ')}")
        for row in rows:
            say(_paragraph(row, everything=numbers))


def _paragraph(entry: Entry, *, everything: bool) -> str:
    reason = plain(str(entry["reason"] or entry["numbers"].get("reason", "")))
    line = f"  {entry['who']}: {entry['outcome']}" + (f". {reason}" if reason else "")
    numbers = lines(entry["numbers"]) if everything else []
    return "\n".join([line, *(f"      {number}" for number in numbers)])
