"""Adds rows to a task, new or known: holds some out, publishes the rest for the data gate, and renews the suites.

The rows come as a canonical JSONL file (``ratchet.data``); it does not know how a file of another format becomes one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ratchet.artifacts import ArtifactStore
from ratchet.data.example import Example, Provenance
from ratchet.data.jsonl import read_examples
from ratchet.errors import AlreadySubmitted, ChangedMeanwhile, DataError, PreconditionFailed
from ratchet.evaluation.record import Metric
from ratchet.evaluation.suite import POOLS, Pool
from ratchet.ledger import Ledger, Transaction
from ratchet.ledger.queue import submit
from ratchet.ledger.tables import TaskRow
from ratchet.settings import Settings
from ratchet.stats.split_plan import SplitPlan, plan_split
from ratchet.tasks import registry
from ratchet.user_tasks.known_rows import Known, given_rows, owners
from ratchet.user_tasks.metric import Suggestion, suggest_metric
from ratchet.user_tasks.split import Split, split_rows
from ratchet.user_tasks.suites import held_out_rows, publish_rows, renew_suites
from ratchet.user_tasks.task import Task, all_tasks, name_of_file, require_name


@dataclass(frozen=True)
class Choice:
    """What a person may decide about a task's rows; None where Ratchet chooses."""

    task: str | None = None
    metric: Metric | None = None
    grader: str | None = None
    pattern: str | None = None


@dataclass(frozen=True)
class Prepared:
    """A file's rows before anything is written: the task, its split and its plan, and what else the file holds.

    ``before`` is what was known when the rows were split, and ``suggestion`` is None for a known task. ``joined`` names
    where a known task's rows came from if its name alone, which is that of this file too, tells that they belong
    together. ``family_rows`` are of built-in families and belong to no task, unless it ``takes_all_rows``, as a task
    that was named does.
    """

    file: Path
    source: str
    task: Task
    before: Known
    path: str
    joined: tuple[str, ...]
    suggestion: Suggestion | None
    split: Split
    plan: SplitPlan
    sample: tuple[Example, ...]
    takes_all_rows: bool
    family_rows: int
    unreadable: tuple[str, ...]


def prepare(
    settings: Settings,
    ledger: Ledger,
    artifacts: ArtifactStore,
    file: Path,
    source: str,
    choice: Choice,
    progress: Callable[[str], object] = lambda _: None,
    path: str = "",
) -> Prepared | None:
    """Read the rows, choose the metric, and split them; None if all rows are of built-in families.

    ``source`` is the name of a file or data set, and ``path`` tells it from others of that name. ``progress`` hears of
    the rows that tasks have already, which may be many. Raises DataError for a file without a readable row, or with too
    few that can be held out, PreconditionFailed for a choice that contradicts a known task.
    """
    takes_all_rows = choice.task is not None
    sample, counts, unreadable = _survey(file, takes_all_rows)
    if not counts["readable"]:
        raise PreconditionFailed(f"{source} has no readable row; nothing was added.")
    if counts["own"] == 0:
        return None
    told = choice.task or _name_told(sample)
    name = told or name_of_file(Path(source).name.split(".")[0])
    require_name(name)
    with ledger.read() as session:
        known = session.get(TaskRow, name)
        if known is not None:
            session.expunge(known)
        metrics = {row.name: Task.of(row).metric for row in all_tasks(session, "user")}
        held = held_out_rows(session, artifacts)
        before = Known.of(session, name)
    taken = owners(given_rows(artifacts, before.given, progress))
    suggestion = None
    if known is None:
        suggestion = suggest_metric(sample)
        task = Task(name=name, metric=choice.metric or suggestion.metric, grader=choice.grader, pattern=choice.pattern)
    else:
        task = Task.of(known)
        _require_same(task, choice)
    own = {pool: [row for row in held[pool] if row.family == name] for pool in POOLS}
    taken |= owners((str(row.family), row) for pool in POOLS for row in held[pool] if row.family != name)
    targets = count_targets((metrics | {name: task.metric}).values())

    def sizes(rows: int) -> Mapping[Pool, int]:
        return plan_rows(settings, task, rows, targets).sizes

    split = split_rows(
        (task.labelled(row) for row in _own_rows(file, takes_all_rows)),
        sizes,
        settings.suites.seed,
        held_before=own,
        taken=taken,
        trained_before=given_rows(artifacts, before.given, progress),
        rows_before=before.rows,
    )
    return Prepared(
        file=file,
        source=source,
        task=task,
        before=before,
        path=path,
        joined=() if known is None or told or path in before.paths else tuple(sorted(before.paths)) or (known.source,),
        suggestion=suggestion,
        split=split,
        plan=plan_rows(settings, task, split.rows, targets),
        sample=tuple(task.labelled(row) for row in sample),
        takes_all_rows=takes_all_rows,
        family_rows=counts["readable"] - counts["own"],
        unreadable=tuple(unreadable),
    )


def count_targets(metrics: Iterable[Metric]) -> int:
    """Targets of the gate: all tasks of accuracy together are one, each other task is one."""
    found = list(metrics)
    return ("accuracy" in found) + sum(metric != "accuracy" for metric in found)


def plan_rows(settings: Settings, task: Task, rows: int, targets: int = 1) -> SplitPlan:
    """How many of a task's rows are held out, and what they can prove beside the gate's other targets."""
    suites = settings.suites
    return plan_split(
        rows,
        task.metric,
        settings.gate,
        targets=targets,
        most_probe=suites.probe_items,
        most_eval=suites.eval_items,
        most_confirm=suites.confirm_items,
    )


def add_prepared(
    settings: Settings, ledger: Ledger, artifacts: ArtifactStore, prepared: Prepared, priority: str = "normal"
) -> list[str]:
    """Add what was prepared, and queue its rows of built-in families; returns the ids of the batches.

    Raises PreconditionFailed as ``commit`` does.
    """
    taught = commit(settings, ledger, artifacts, prepared, priority)
    batches = [taught] if taught is not None else []
    if prepared.family_rows:
        lines = CountedLines(row.to_line() for row in _family_rows(prepared.file))
        batches.append(_queue(ledger, artifacts, lines, prepared.source, priority))
    return batches


def queue_file(ledger: Ledger, artifacts: ArtifactStore, file: Path, source: str, priority: str = "normal") -> str:
    """Queue a file of which all rows are of built-in families; returns the batch's id.

    All lines are passed on, unreadable and blank ones too, so that refused rows keep their numbers.
    """
    with open(file, "rb") as lines:
        return _queue(ledger, artifacts, CountedLines(map(_text_of, lines)), source, priority)


def _queue(ledger: Ledger, artifacts: ArtifactStore, lines: CountedLines, source: str, priority: str) -> str:
    provenance = Provenance(generator="file", version="1", parents=(source,)).model_dump(mode="json")
    artifact = artifacts.publish_lines(lines, "batch", {"file": source})
    with ledger.write() as tx:
        event = submit(tx, artifact.id, lines.count, "user", provenance, priority)
        tx.emit(event)
    return event.batch_id


def commit(
    settings: Settings, ledger: Ledger, artifacts: ArtifactStore, prepared: Prepared, priority: str = "normal"
) -> str | None:
    """Publish the held-out rows and the training rows, and record both in one transaction; returns the batch's id, None
    where a few rows were added and all of them are held out.

    Raises AlreadySubmitted for rows that were added before, and ChangedMeanwhile if the task was changed or other rows
    were added since they were split: some may be held out here and trained on there.
    """
    task, split = prepared.task, prepared.split
    held = {pool: publish_rows(artifacts, items, "suite") for pool, items in split.held_out.items()}
    provenance = Provenance(generator="file", version="2", parents=(prepared.source,)).model_dump(mode="json")
    lines = CountedLines(_training_lines(prepared))
    artifact = artifacts.publish_lines(lines, "batch", {"file": prepared.source, "task": task.name})

    with ledger.write() as tx:
        if Known.of(tx.session, task.name) != prepared.before:
            raise ChangedMeanwhile(f"rows were added or the task {task.name} was changed meanwhile; try again.")
        origin = {**provenance, "held_out": split.held_rows, "path": prepared.path}
        if not lines.count and split.rows == prepared.before.rows:
            raise AlreadySubmitted(
                f"the task {task.name} has every row of {prepared.source} already; nothing was added."
            )
        _record(tx, prepared, held)
        event = None
        if lines.count:
            event = submit(tx, artifact.id, lines.count, "user", origin, priority, task=task.name)
            tx.emit(event)
    renew_suites(settings, ledger, artifacts)
    return event.batch_id if event is not None else None


class CountedLines:
    """Lines to be written, blank ones included; ``count`` is the number of the others once they have been."""

    def __init__(self, lines: Iterable[str]):
        self.count = 0
        self._lines = lines

    def __iter__(self) -> Iterator[str]:
        for line in self._lines:
            self.count += bool(line.strip())
            yield line


def _own_rows(file: Path, takes_all_rows: bool) -> Iterator[Example]:
    """The readable rows that belong to a task: all, or those of no built-in family."""
    for _, row in read_examples(file):
        if isinstance(row, Example) and (takes_all_rows or registry.find(row.family) is None):
            yield row


def _family_rows(file: Path) -> Iterator[Example]:
    """The readable rows of built-in families."""
    for _, row in read_examples(file):
        if isinstance(row, Example) and registry.find(row.family) is not None:
            yield row


def _text_of(line: bytes) -> str:
    return line.decode(errors="backslashreplace").rstrip("\n")


def _survey(file: Path, takes_all_rows: bool) -> tuple[list[Example], dict[str, int], list[str]]:
    """The first rows of a task, counts, and the errors of unreadable rows."""
    sample: list[Example] = []
    counts, unreadable = {"readable": 0, "own": 0}, list[str]()
    for _, row in read_examples(file):
        if isinstance(row, DataError):
            unreadable.append(str(row))
            continue
        counts["readable"] += 1
        if takes_all_rows or registry.find(row.family) is None:
            counts["own"] += 1
            if len(sample) < 1_000:
                sample.append(row)
    return sample, counts, unreadable


def _name_told(sample: Sequence[Example]) -> str | None:
    """The family or skill that all rows name, if there is one."""
    named = {row.family for row in sample}
    return name_of_file(only) if len(named) == 1 and (only := str(named.pop())) != "text" else None


def _require_same(task: Task, choice: Choice) -> None:
    for field in ("metric", "grader", "pattern"):
        asked, known = getattr(choice, field), getattr(task, field)
        if asked is not None and asked != known:
            raise PreconditionFailed(
                f"the task {task.name} has the {field} {known}, not {asked}: change it with "
                f"`ratchet data set {task.name} --{field} {asked}`, or give these rows a task of their own."
            )


def _training_lines(prepared: Prepared) -> Iterator[str]:
    """The rows to train on, and those that could not be read, which the data gate puts into quarantine."""
    bad = {number for number, row in read_examples(prepared.file) if isinstance(row, DataError)}
    if bad:
        with open(prepared.file, "rb") as lines:
            yield from (_text_of(line) for number, line in enumerate(lines, start=1) if number in bad)
    own = map(prepared.task.labelled, _own_rows(prepared.file, prepared.takes_all_rows))
    yield from (row.to_line() for row in prepared.split.training_rows(own))


def _record(tx: Transaction, prepared: Prepared, held: dict[Pool, str]) -> None:
    """A task that is used up becomes active again once the data gate has stored rows of it."""
    task, split = prepared.task, prepared.split
    row = tx.session.get(TaskRow, task.name)
    values: dict[str, Any] = {
        "held_out": dict(held),
        "rows": split.rows,
        "held_rows": split.held_rows,
        "updated_at": tx.now,
    }
    if row is None:
        fixed = task.model_dump(exclude={"version"})
        tx.session.add(TaskRow(**fixed, **values, source=prepared.source, created_at=tx.now))
        return
    if dict(row.held_out) != dict(held):
        row.version += 1
    for name, value in values.items():
        setattr(row, name, value)
    if prepared.source not in row.source.split(", "):
        row.source = f"{row.source}, {prepared.source}"
