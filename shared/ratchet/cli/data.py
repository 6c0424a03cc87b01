"""`ratchet data`: add rows of your own as a task, and list and change tasks."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from ratchet.cli.output import Json, print_json, print_table, say
from ratchet.disk import home_errors, keep_private
from ratchet.errors import PreconditionFailed
from ratchet.home import artifacts, opened, wake
from ratchet.ledger import Ledger
from ratchet.ledger.migrate import migrate
from ratchet.ledger.queue import PRIORITIES
from ratchet.printable import printable
from ratchet.settings import Settings, load
from ratchet.wording import shortened

if TYPE_CHECKING:
    from ratchet.user_tasks.add import Choice
    from ratchet.views.tasks import TaskLine

MOST_SHOWN = 5
"""Refused rows that are printed; all of them are kept in quarantine."""

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="Your own data: each data set is a task, with held-out rows that every checkpoint is tested on.",
)

TaskName = Annotated[str | None, typer.Option("--task", help="Name of the task; by default that of the file.")]
MetricOption = Annotated[
    str | None,
    typer.Option(
        "--metric",
        help="accuracy (answers can be checked), loss (free text) or judge (an LLM judge); unset: by the rows.",
    ),
]
GraderOption = Annotated[
    str | None, typer.Option(help="Grader of all rows, for accuracy: numeric, math, normalized, exact, json, choice, …")
]
MapOption = Annotated[
    str | None, typer.Option("--map", help="Columns of other names, as question=Frage,answer=Antwort.")
]


@app.command()
def add(
    source: Annotated[str, typer.Argument(help="A file, a folder of files, or a data set of the hub (hf:ORG/NAME).")],
    task: TaskName = None,
    metric: MetricOption = None,
    grader: GraderOption = None,
    pattern: Annotated[str | None, typer.Option(help="Regular expression of the grader regex.")] = None,
    columns: MapOption = None,
    priority: Annotated[
        str, typer.Option(help="high, normal or low: its place among batches of built-in tasks.")
    ] = "normal",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be done, and change nothing.")] = False,
    as_json: Annotated[bool, Json] = False,
) -> None:
    """Add rows: JSONL, JSON, CSV, TSV, Parquet or Arrow, also compressed; docs/data-files.md has the shapes.

    Some rows are held out, and every checkpoint from now on is judged on them; the others are trained on. It works at
    any time: before the first run, and while one is going on. Rows that cannot be read are named with their lines.
    """
    from ratchet.user_tasks.change import make_choice

    if priority not in PRIORITIES:
        raise PreconditionFailed(f"--priority {priority} is not one of {', '.join(PRIORITIES)}.")
    choice = make_choice(task, metric, grader, pattern)
    with ledger_of_home() as (settings, ledger), tempfile.TemporaryDirectory(dir=settings.work_folder) as folder:
        rows = Path(folder) / "rows.jsonl"
        origin = converted(source, columns, rows, quiet=as_json)
        found = add_rows(settings, ledger, rows, origin, choice, priority, dry_run=dry_run, quiet=as_json)
        if not dry_run:
            wake(settings, "correction")
    if as_json:
        print_json(found)


@app.command("list")
def list_tasks(as_json: Annotated[bool, Json] = False) -> None:
    """List the tasks with their metrics and rows."""
    from ratchet.views.tasks import task_lines

    with opened() as (_, ledger), ledger.read() as session:
        lines = task_lines(session)
    if as_json:
        print_json([_as_values(line) for line in lines])
        return
    if not lines:
        say("There is no task yet: `ratchet data add FILE` makes one.")
        return
    columns = ("task", "metric", "grader", ">rows", ">held out", ">for training", ">passes", "state", "from")
    print_table(
        columns,
        (
            (
                line.name,
                line.row.metric,
                line.grader,
                f"{line.row.rows:,}",
                f"{line.row.held_rows:,}",
                f"{line.training_rows:,}",
                f"{line.row.passes:.3g}",
                line.state,
                shortened(line.row.source, 40),
            )
            for line in lines
        ),
    )
    for line in lines:
        if line.row.reason:
            say(f"{line.name}: {line.row.reason}")


@app.command("set")
def set_task(
    task: Annotated[str, typer.Argument(help="Name of the task.")],
    metric: MetricOption = None,
    grader: GraderOption = None,
    pattern: Annotated[str | None, typer.Option(help="Regular expression of the grader regex.")] = None,
    protected: Annotated[
        bool | None,
        typer.Option("--protected/--unprotected", help="Whether the gate refuses a model that is worse here."),
    ] = None,
) -> None:
    """Change how a task is judged. The champion and open candidates are tested again.

    With another metric or grader its progress is measured anew, also where it was used up.
    """
    from ratchet.user_tasks.change import WOKEN, change_task, in_words, make_choice

    choice = make_choice(task, metric, grader, pattern)
    with opened() as (settings, ledger):
        row = change_task(settings, ledger, artifacts(settings), task, choice, protected)
        wake(settings, *WOKEN)
    say(in_words(row))


@contextmanager
def ledger_of_home() -> Iterator[tuple[Settings, Ledger]]:
    """The ledger of this home, which is made where there is none yet."""
    settings = load()
    keep_private(settings.home)
    with home_errors(settings.home):
        settings.work_folder.mkdir(parents=True, exist_ok=True)
    ledger = Ledger(settings.ledger_url)
    try:
        migrate(ledger)
        yield settings, ledger
    finally:
        ledger.close()


class Origin(NamedTuple):
    """Where rows come from: a printable name of the file or data set, its path, and how many rows could be read or
    not."""

    name: str
    path: str
    readable: int
    unreadable: int


def add_rows(
    settings: Settings,
    ledger: Ledger,
    rows: Path,
    origin: Origin,
    choice: Choice,
    priority: str = "normal",
    *,
    dry_run: bool = False,
    quiet: bool = False,
) -> dict[str, Any]:
    """Show what becomes of canonical rows, and add them; returns the numbers that --json prints."""
    from ratchet.cli.data_report import numbers, report
    from ratchet.user_tasks import add as adding

    store = artifacts(settings)
    prepared = adding.prepare(settings, ledger, store, rows, origin.name, choice, path=origin.path)
    found: dict[str, Any] = {"source": origin.name, "batch_ids": [], "unreadable": origin.unreadable}
    if prepared is not None:
        found |= numbers(prepared)
        if not quiet:
            report(prepared)
    if prepared is None or prepared.family_rows:
        found["queued_rows"] = origin.readable if prepared is None else prepared.family_rows
        if not quiet:
            verb = "would be" if dry_run else "are"
            say(f"{found['queued_rows']:,} rows of built-in tasks {verb} queued for training.")
    if dry_run:
        return found
    if prepared is None:
        found["batch_ids"] = [adding.queue_file(ledger, store, rows, origin.name, priority)]
    else:
        found["batch_ids"] = adding.add_prepared(settings, ledger, store, prepared, priority)
    return found


def converted(source: str, columns: str | None, destination: Path, *, quiet: bool = False) -> Origin:
    """Write the source's rows as canonical JSONL.

    Unreadable rows stay in the file, for the data gate to put into quarantine, and the first of them are printed.
    """
    from ratchet.data.column_map import ColumnMap
    from ratchet.data.files import read_file_examples, write_examples

    mapping = ColumnMap.parse(columns) if columns else None
    notice = (lambda _: None) if quiet else say
    found = write_examples(read_file_examples(source, mapping, notice), destination)
    for _, error in found.refused[:MOST_SHOWN]:
        say(f"  {error}", err=True)
    if found.unreadable > MOST_SHOWN:
        say(f"  … and {found.unreadable - MOST_SHOWN:,} more", err=True)
    path = source if source.startswith("hf:") else printable(Path(source).resolve())
    name = source if source.startswith("hf:") else printable(Path(source).resolve().name)
    return Origin(name, path, found.rows - found.unreadable, found.unreadable)


def _as_values(line: TaskLine) -> dict[str, Any]:
    fields = ("name", "kind", "metric", "grader", "pattern", "protected", "version", "rows", "held_rows", "passes")
    values = {field: getattr(line.row, field) for field in (*fields, "state", "reason", "source")}
    return {**values, "training_rows": line.training_rows}
