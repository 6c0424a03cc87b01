"""The items of a verdict, from files of rows as `ratchet data add` reads them: each file is a task with its metric."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ratchet.data.column_map import ColumnMap
from ratchet.data.example import Example
from ratchet.data.files import Notice, read_file_examples
from ratchet.errors import DataError
from ratchet.evaluation.suite import keyed
from ratchet.tasks import registry
from ratchet.user_tasks.add import Choice
from ratchet.user_tasks.metric import suggest_metric
from ratchet.user_tasks.task import Task, name_of_file

MOST_NAMED = 5


@dataclass(frozen=True)
class Items:
    """The items of all files, each once, and what was noticed while they were read. ``digest`` names the content."""

    items: tuple[Example, ...]
    notes: tuple[str, ...]

    @property
    def digest(self) -> str:
        """32 hex digits of the sha256 over all items."""
        return hashlib.sha256("\n".join(item.to_line() for item in self.items).encode()).hexdigest()[:32]


def read_items(
    sources: Sequence[str], choice: Choice, columns: ColumnMap | None = None, notice: Notice = lambda _: None
) -> Items:
    """Read the files, whose rows are taken for what ``choice`` says. Raises DataError for a row that cannot be read: a
    shorter suite would be another one.
    """
    found: dict[str, Example] = {}
    repeated, notes = 0, list[str]()
    for source in sources:
        rows, why = _task_rows(source, choice, columns, notice)
        notes.append(why)
        for row in rows:
            item = keyed(row)
            repeated += item.metadata["key"] in found
            found.setdefault(item.metadata["key"], item)
    if repeated:
        notes.append(f"{repeated:,} rows ask what an earlier one asks, and count once: the tests need different items.")
    return Items(tuple(found.values()), tuple(notes))


def _task_rows(source: str, choice: Choice, columns: ColumnMap | None, notice: Notice) -> tuple[list[Example], str]:
    """The rows of one file, labelled as a task of its name, and how they are measured."""
    rows, refused = list[Example](), list[str]()
    for read in read_file_examples(source, columns, notice):
        if isinstance(read.value, DataError):
            refused.append(str(read.value))
        else:
            rows.append(read.value)
    if refused:
        more = f"; and {len(refused) - MOST_NAMED:,} more" if len(refused) > MOST_NAMED else ""
        raise DataError(
            f"{source} has {len(refused):,} rows that cannot be read, and a verdict on the others would be one on "
            f"another suite; mend or remove them: {'; '.join(refused[:MOST_NAMED])}{more}"
        )
    own = [row for row in rows if not _is_built_in(row)]
    if not own:
        return rows, f"{source}: {len(rows):,} items of built-in tasks"
    suggestion = suggest_metric(own)
    metric = choice.metric or ("accuracy" if choice.grader else suggestion.metric)
    if metric == "judge":
        raise DataError("a verdict has no LLM judge: use --metric accuracy or loss.")
    name = name_of_file(Path(source).name.split(".")[0])
    task = Task(name=name, metric=metric, grader=choice.grader, pattern=choice.pattern)
    why = suggestion.why if metric == suggestion.metric else "as asked"
    labelled = [row if _is_built_in(row) else task.labelled(row) for row in rows]
    return labelled, f"{name}: {len(rows):,} items measured by {metric} ({why})"


def _is_built_in(row: Example) -> bool:
    return row.family is not None and registry.find(row.family) is not None
