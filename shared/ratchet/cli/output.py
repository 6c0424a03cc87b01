"""Output of commands: tables for people, JSON for scripts, and short forms of numbers, times and sizes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

Json = typer.Option("--json", help="Print JSON for scripts.")
MOST = 2**31 - 1
"""The largest number that every ledger takes as an id or a limit; a larger one would be an error of its driver."""
MOST_PORT = 65_535
PLAIN_WIDTH = 120
"""Columns where the output is not a terminal: a pipe has no width of its own."""


def console() -> Console:
    """A console for the terminal, or for plain text of ``PLAIN_WIDTH`` columns where there is none."""
    from rich.console import Console  # a tenth of a second that JSON and plain lines save

    made = Console(highlight=False, soft_wrap=False)
    return made if made.is_terminal else Console(highlight=False, width=max(PLAIN_WIDTH, made.width))


def print_json(value: Any) -> None:
    typer.echo(json.dumps(value, ensure_ascii=False, indent=2))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], title: str | None = None) -> None:
    """Print a table without borders. A column whose name begins with ``>`` is right-aligned."""
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, box=None, title_justify="left", pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column.removeprefix(">"), justify="right" if column.startswith(">") else "left")
    for row in rows:
        table.add_row(*(Text("" if cell is None else str(cell)) for cell in row))  # a [tag] in an answer is no markup
    console().print(table)


def clock(at: float | None) -> str:
    """Local time of day, or date and time if it was not today."""
    if at is None:
        return ""
    local = datetime.fromtimestamp(at)
    today = local.date() == datetime.now().date()
    return local.strftime("%H:%M:%S" if today else "%Y-%m-%d %H:%M")


def duration(seconds: float) -> str:
    """``42 s``, ``7 min``, ``3.5 h``, ``2.1 d``."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    if seconds < 6000:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 172_800 else f"{seconds / 86_400:.1f} d"


def size(bytes_: float) -> str:
    """``450 MB``."""
    for unit in ("B", "kB", "MB", "GB"):
        if bytes_ < 1000:
            return f"{bytes_:.3g} {unit}"
        bytes_ /= 1000
    return f"{bytes_:.3g} TB"


def shortened(text: str, width: int) -> str:
    """The text on one line of at most ``width`` characters."""
    line = " ".join(text.split())
    return line if len(line) <= width else line[: width - 1] + "…"
