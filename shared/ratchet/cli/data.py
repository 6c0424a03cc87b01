"""`ratchet data`: add rows of your own as a task, and list and change tasks."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer
from sqlalchemy import func, select

from ratchet.cli.context import artifacts, opened, wake
from ratchet.cli.output import Json, print_json, print_table, shortened
from ratchet.disk import home_errors
from ratchet.errors import PreconditionFailed
from ratchet.evaluation.record import Metric
from ratchet.ledger import Ledger
from ratchet.ledger.migrate import migrate
from ratchet.ledger.queue import PRIORITIES
from ratchet.ledger.tables import BatchRow, TaskRow
from ratchet.settings import Settings, load
from ratchet.user_files import printable

if TYPE_CHECKING:
    from ratchet.user_tasks.add import Choice

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
    with opened() as (_, ledger), ledger.read() as session:
        rows = list(session.scalars(select(TaskRow).order_by(TaskRow.created_at)))
        taught = select(BatchRow.task, func.sum(BatchRow.examples)).where(BatchRow.task.is_not(None))
        stored = {str(task): int(count or 0) for task, count in session.execute(taught.group_by(BatchRow.task))}
    if as_json:
        print_json([_as_values(row, stored) for row in rows])
        return
    if not rows:
        typer.echo("There is no task yet: `ratchet data add FILE` makes one.")
        return
    columns = ("task", "metric", "grader", ">rows", ">held out", ">trained on", ">passes", "state", "from")
    print_table(
        columns,
        (
            (
                row.name,
                row.metric,
                row.grader or ("by row" if row.metric == "accuracy" else ""),
                f"{row.rows:,}",
                f"{row.held_rows:,}",
                f"{stored.get(row.name, 0):,}",
                f"{row.passes:.3g}",
                row.state.replace("_", " "),
                shortened(row.source, 40),
            )
            for row in rows
        ),
    )
    for row in rows:
        if row.reason:
            typer.echo(f"{row.name}: {row.reason}")


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
    from ratchet.user_tasks.suites import renew_suites
    from ratchet.user_tasks.supply import ACTIVE
    from ratchet.user_tasks.task import get_task

    choice = make_choice(task, metric, grader, pattern)
    with opened() as (settings, ledger):
        with ledger.write() as tx:
            row = get_task(tx.session, task)
            if row.kind != "user":
                raise PreconditionFailed(f"the task {task} belongs to Ratchet; its metric stays.")
            told = {name: getattr(choice, name) for name in ("metric", "grader", "pattern")}
            changed = {name: value for name, value in told.items() if value not in (None, getattr(row, name))}
            for name, value in changed.items():
                setattr(row, name, value)
            if changed:
                row.best_id, row.stale, row.state, row.reason = None, 0, ACTIVE, ""
            if protected is not None:
                row.protected = protected
            row.updated_at = tx.now
            row.version += 1
        renew_suites(settings, ledger, artifacts(settings))
        wake(settings, "testing", "generation")
    typer.echo(f"the task {task} is judged by {row.metric}{f', grader {row.grader}' if row.grader else ''}.")


def make_choice(task: str | None, metric: str | None, grader: str | None, pattern: str | None) -> Choice:
    """The options as a Choice. Raises PreconditionFailed for an unknown metric or grader."""
    from typing import cast, get_args

    from ratchet.tasks.graders import declared_graders
    from ratchet.user_tasks.add import Choice

    if metric is not None and metric not in get_args(Metric):
        raise PreconditionFailed(f"--metric {metric} is not one of {', '.join(get_args(Metric))}.")
    if grader is not None and grader not in declared_graders():
        raise PreconditionFailed(f"--grader {grader} is not one of {', '.join(declared_graders())}.")
    if (grader == "regex") != (pattern is not None):
        raise PreconditionFailed("--grader regex and --pattern belong together.")
    return Choice(task=task, metric=cast("Metric | None", metric), grader=grader, pattern=pattern)


@contextmanager
def ledger_of_home() -> Iterator[tuple[Settings, Ledger]]:
    """The ledger of this home, which is made where there is none yet."""
    settings = load()
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
            typer.echo(f"{found['queued_rows']:,} rows of built-in tasks {verb} queued for training.")
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
    notice = (lambda _: None) if quiet else typer.echo
    found = write_examples(read_file_examples(source, mapping, notice), destination)
    for _, error in found.refused[:MOST_SHOWN]:
        typer.echo(f"  {error}", err=True)
    if found.unreadable > MOST_SHOWN:
        typer.echo(f"  … and {found.unreadable - MOST_SHOWN:,} more", err=True)
    path = source if source.startswith("hf:") else printable(Path(source).resolve())
    name = source if source.startswith("hf:") else printable(Path(source).resolve().name)
    return Origin(name, path, found.rows - found.unreadable, found.unreadable)


def _as_values(row: TaskRow, stored: Mapping[str, int]) -> dict[str, Any]:
    fields = ("name", "kind", "metric", "grader", "pattern", "protected", "version", "rows", "held_rows", "passes")
    values = {field: getattr(row, field) for field in (*fields, "state", "reason", "source")}
    return {**values, "training_rows": stored.get(row.name, 0)}
