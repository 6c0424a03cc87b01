"""Output of commands: tables for people, JSON for scripts.

What is shown may come from outside, such as a model's answer or the name of a file. Nothing in it reaches the terminal
as a control character.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import typer

from ratchet.printable import printable_json, printable_text

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
    from ratchet.cli.safe_console import SafeConsole  # rich takes a tenth of a second that JSON and plain lines save

    made = SafeConsole(highlight=False, soft_wrap=False)
    return made if made.is_terminal else SafeConsole(highlight=False, width=max(PLAIN_WIDTH, made.width))


def say(text: str = "", *, err: bool = False) -> None:
    """Print a line, or a few."""
    typer.echo(printable_text(text), err=err)


def say_json(text: str) -> None:
    """Print a JSON text."""
    typer.echo(printable_json(text))


def print_json(value: Any) -> None:
    say_json(json.dumps(value, ensure_ascii=False, indent=2))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], title: str | None = None) -> None:
    """Print a table without borders. A column whose name begins with ``>`` is right-aligned."""
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, box=None, title_justify="left", pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column.removeprefix(">"), justify="right" if column.startswith(">") else "left")
    for row in rows:
        shown = ("" if cell is None else printable_text(cell) for cell in row)
        table.add_row(*map(Text, shown))  # a [tag] in an answer is no markup
    console().print(table)
