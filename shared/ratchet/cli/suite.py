"""`ratchet suite`: what checkpoints are tested on, and a way in for suites and answers of lm-evaluation-harness."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from ratchet.artifacts import ArtifactStore
from ratchet.cli import naming
from ratchet.cli.doorbell import ring
from ratchet.cli.output import Json, clock, print_json, print_table
from ratchet.cli.place import artifacts, opened
from ratchet.errors import PreconditionFailed
from ratchet.evaluation.by_level import to_json
from ratchet.evaluation.lm_eval import Reading, Sample, as_record, as_suite, read_samples
from ratchet.evaluation.rate import level_rates
from ratchet.evaluation.record import Evaluation, to_lines
from ratchet.evaluation.stored import ITEMS, suite_row
from ratchet.evaluation.suite import IMPORTED, Suite
from ratchet.files import printable
from ratchet.ledger import Ledger, Transaction
from ratchet.ledger.requests import ask
from ratchet.ledger.suites import evaluation, suite_named
from ratchet.ledger.tables import Evaluation as Row
from ratchet.ledger.tables import SuiteRow
from ratchet.settings import Settings

app = typer.Typer(
    no_args_is_help=True,
    help="Show what checkpoints are tested on, and bring in tasks and answers of lm-evaluation-harness.",
)


@app.command("list")
def list_suites(as_json: Annotated[bool, Json] = False) -> None:
    """List the suites: those in force, those that were rotated out, and those that were imported."""
    with opened() as (_, ledger), ledger.read() as session:
        rows = [_values(session, row) for row in session.scalars(select(SuiteRow).order_by(SuiteRow.created_at))]
    if as_json:
        print_json(rows)
        return
    columns = ("suite", "pool", ">version", ">items", ">records", ">challenges", "made", "retired")
    print_table(
        columns, ([*list(row.values())[:6], clock(row["created_at"]), clock(row["retired_at"])] for row in rows)
    )


@app.command("import")
def import_samples(
    file: Annotated[
        Path,
        typer.Argument(exists=True, dir_okay=False, help="samples_TASK_….jsonl, as `lm_eval --log_samples` writes."),
    ],
    family: Annotated[str, typer.Option(help="What its items are called in reports; the file's name otherwise.")] = "",
    filter_name: Annotated[
        str | None, typer.Option("--filter", help="Which of the task's filters; the first in the file otherwise.")
    ] = None,
    grader: Annotated[
        str | None, typer.Option(help="How Ratchet grades an answer: exact, normalized, numeric or json; by the gold.")
    ] = None,
    gold_after: Annotated[str, typer.Option(help="The gold begins behind the last of these marks, as ####.")] = "",
    checkpoint: Annotated[
        str | None, typer.Option(help="Keep the harness's own answers too, as the record of this checkpoint.")
    ] = None,
    as_json: Annotated[bool, Json] = False,
) -> None:
    """Bring in a task of lm-evaluation-harness: its items as a suite, and its answers as a checkpoint's record.

    The suite is asked of a checkpoint by `ratchet suite run`, and two checkpoints are compared by `ratchet flips
    --suite`. It decides nothing: regression, ranking and gate read the suites in force. Only tasks that generate text.
    """
    samples = read_samples(file, Reading(family or printable(file.stem), filter_name, grader, gold_after))
    with opened() as (settings, ledger):
        store = artifacts(settings)
        suite = _keep_suite(ledger, store, as_suite(samples, 0), file)
        record = None
        if checkpoint is not None:
            with ledger.read() as session:
                found = naming.find(session, checkpoint)
            record = as_record(samples, suite, found.id, found.weights)
            _keep_record(settings, ledger, store, record, suite)
    _say(samples, suite, record, as_json=as_json)


def _say(samples: Sequence[Sample], suite: Suite, record: Evaluation | None, *, as_json: bool) -> None:
    one = samples[0]
    said = {"suite": suite.id, "items": len(suite.items), "filter": one.filter, "family": suite.items[0].family}
    if record is not None:
        said |= {"checkpoint_id": record.checkpoint_id, "correct": sum(item.correct for item in record.items)}
    if as_json:
        print_json(said)
        return
    typer.echo(f"suite {suite.id[:12]}: {said['items']} items of {said['family']}, filter {one.filter}.")
    if record is not None:
        typer.echo(f"{record.checkpoint_id} had {said['correct']} of {said['items']} right there, by {one.metric}.")


@app.command()
def run(
    suite: Annotated[str, typer.Argument(help="The beginning of its id, or eval, probe or confirm.")],
    checkpoint: Annotated[str, typer.Argument(help="Its number, the beginning of its id, champion, newest or base.")],
) -> None:
    """Ask testing to run a checkpoint over a suite, as `ratchet suite import` made it; it is done by a running loop."""
    with opened() as (settings, ledger):
        with ledger.write() as tx:
            row, found = suite_named(tx.session, suite), naming.find(tx.session, checkpoint)
            if row.pool == "confirm":
                raise PreconditionFailed(
                    "a confirm suite is opened by a challenge alone: every other look wears it out."
                )
            if evaluation(tx.session, found.id, row.id) is not None:
                raise PreconditionFailed(
                    f"{found.id} has a record on that suite already: `ratchet flips` compares two."
                )
            ask(tx, found.id, row.id, "user", found.id)
        ring(settings, "testing")
    typer.echo(f"testing is asked for {found.id} on suite {row.id[:12]} ({row.items} items).")


def _values(session: Session, row: SuiteRow) -> dict[str, Any]:
    records = session.scalar(select(func.count()).select_from(Row).where(Row.suite_id == row.id)) or 0
    return {
        "suite": row.id[:12],
        "pool": row.pool,
        "version": row.ordinal,
        "items": row.items,
        "records": records,
        "challenges": row.uses,
        "created_at": row.created_at,
        "retired_at": row.retired_at,
    }


def _keep_suite(ledger: Ledger, store: ArtifactStore, suite: Suite, file: Path) -> Suite:
    """Once; the second time it is there already."""
    artifact = store.publish_lines(suite.to_lines(), "suite", {"pool": IMPORTED, "file": printable(file.name)})
    with ledger.write() as tx:
        if tx.session.get(SuiteRow, suite.id) is None:
            tx.session.add(suite_row(suite, artifact.id, tx.now))
    return suite


def _keep_record(settings: Settings, ledger: Ledger, store: ArtifactStore, record: Evaluation, suite: Suite) -> None:
    settings.work_folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=settings.work_folder) as folder:
        (Path(folder) / "record").mkdir()
        (Path(folder) / "record" / ITEMS).write_text(to_lines(record.items))
        provenance = {"checkpoint": record.checkpoint_id, "suite": suite.id, "pool": IMPORTED}
        artifact = store.publish(Path(folder) / "record", "record", provenance, consume=True)
    with ledger.write() as tx:
        if evaluation(tx.session, record.checkpoint_id, suite.id) is not None:
            raise PreconditionFailed(f"{record.checkpoint_id} has a record on that suite already, which is kept.")
        _enter(tx, record, suite, artifact.id)


def _enter(tx: Transaction, record: Evaluation, suite: Suite, artifact_id: str) -> None:
    tx.session.add(
        Row(
            id=f"{record.checkpoint_id}/{suite.id}",
            checkpoint_id=record.checkpoint_id,
            suite_id=suite.id,
            pool=IMPORTED,
            key=record.key.model_dump(),
            artifact=artifact_id,
            items=len(record.items),
            correct=sum(item.correct for item in record.items),
            by_level=to_json(level_rates(record.items)),
            tokens_per_s=0.0,
            tally=None,
            created_at=tx.now,
        )
    )
