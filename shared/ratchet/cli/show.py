"""`ratchet show KIND`: the ledger's contents as tables for people and as JSON for scripts.

A kind is a function that takes a Reader and its own options and returns a Page; ``@kind`` turns it into a command with
a ``--json`` option. Kinds about checkpoints are in show_checkpoints, kinds about data in show_data.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, is_dataclass
from functools import wraps
from typing import Annotated, Any

import typer
from sqlalchemy.orm import Session

from ratchet.cli.context import opened
from ratchet.cli.output import MOST, Json, print_json, print_table
from ratchet.ledger import Ledger
from ratchet.settings import Settings

Limit = Annotated[int, typer.Option("--limit", "-n", min=1, max=MOST, help="How many to list.")]
AnyCheckpoint = Annotated[
    str, typer.Argument(help="Its number, the beginning of its id, champion, newest, previous or base.")
]

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="Show one topic as a table, or with --json as records with more fields for scripts.",
)


@dataclass(frozen=True)
class Reader:
    """What a kind reads from: one consistent session on the ledger, and the settings of this home."""

    settings: Settings
    ledger: Ledger
    session: Session


def _as_mapping(row: Any) -> Mapping[str, Any]:
    return asdict(row) if is_dataclass(row) and not isinstance(row, type) else dict(row)


@dataclass(frozen=True)
class Table:
    """Rows of any type, and how they are shown.

    ``columns`` maps a heading (right-aligned if it begins with ``>``) to a function of a row. ``values`` turns a row
    into a JSON record, and ``name`` is the key of these records in the JSON.
    """

    name: str
    rows: Sequence[Any]
    columns: Mapping[str, Callable[[Any], object]]
    values: Callable[[Any], Mapping[str, Any]] = _as_mapping
    title: str | None = None


@dataclass(frozen=True)
class Page:
    """Tables, with text before and after them, or ``empty`` if no table has a row. ``facts`` are added to the JSON."""

    tables: Sequence[Table]
    lead: str = ""
    note: str = ""
    empty: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)


def kind(function: Callable[..., Page]) -> Callable[..., None]:
    """Turn a function of a Reader and options into a command of ``ratchet show``."""
    signature = inspect.signature(function, eval_str=True)

    @wraps(function)
    def command(*, as_json: bool, **options: Any) -> None:
        with opened() as (settings, ledger), ledger.read() as session:
            page = function(Reader(settings, ledger, session), **options)
            show_page(page, as_json=as_json)

    options = list(signature.parameters.values())[1:]
    json_option = inspect.Parameter(
        "as_json", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=Annotated[bool, Json]
    )
    parameters = [*(option.replace(kind=inspect.Parameter.KEYWORD_ONLY) for option in options), json_option]
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    app.command(function.__name__.removeprefix("show_"))(command)
    return command


def show_page(page: Page, *, as_json: bool) -> None:
    """Print the page. The JSON has one list of records per table, beside the page's facts."""
    if as_json:
        print_json({table.name: [table.values(row) for row in table.rows] for table in page.tables} | dict(page.facts))
        return
    shown = [table for table in page.tables if table.rows]
    if not shown and page.empty:
        typer.echo(page.empty)
        return
    if page.lead:
        typer.echo(page.lead)
    for place, table in enumerate(shown):
        if place:
            typer.echo()
        print_table(
            list(table.columns), ([cell(row) for cell in table.columns.values()] for row in table.rows), table.title
        )
    if page.note:
        typer.echo(page.note)


from ratchet.cli import show_checkpoints, show_data  # noqa: E402, F401 -- they register their kinds
