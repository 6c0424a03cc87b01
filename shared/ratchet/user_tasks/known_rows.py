"""The rows that tasks have already, under any name: given to be trained on, or held out.

What has been trained on proves nothing, so no row of a later file that asks the same, or nearly the same, may be held
out. Given rows stream through, once for their keys and once to be compared; how rows are split is told in ``split``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from sqlalchemy import select
from sqlalchemy.orm import Session

from ratchet.artifacts import ArtifactStore
from ratchet.data.example import Example
from ratchet.data.jsonl import read_examples
from ratchet.data.near_duplicates import Sketch, SketchIndex, common_runs
from ratchet.ledger.tables import BatchRow, TaskRow
from ratchet.tasks.graders import text_key
from ratchet.user_tasks.general import REPLAY
from ratchet.user_tasks.supply import STORED
from ratchet.user_tasks.task import all_tasks

ROWS = "rows.jsonl"
REPORT_EVERY = 5_000

Owned = tuple[str, Example]
"""A task's name, and a row that it has been given to train on."""


@dataclass(frozen=True)
class Known:
    """What the ledger has of a task, None and 0 for a new one, and which rows all tasks have been given.

    Two are equal if nobody has added rows to any task between, nor changed this one. ``paths`` says where this task's
    rows came from; ``given`` names a task and an artifact each, this task's last.
    """

    version: int | None
    rows: int
    held_out: Mapping[str, str]
    batches: frozenset[str]
    paths: frozenset[str] = field(compare=False)
    given: tuple[tuple[str, str], ...] = field(compare=False)

    @classmethod
    def of(cls, session: Session, name: str) -> Known:
        task = session.get(TaskRow, name)
        batches = list(session.scalars(select(BatchRow).where(BatchRow.task.is_not(None)).order_by(BatchRow.id)))
        given = [(str(batch.task), artifact) for batch in batches if (artifact := _given(batch, name)) is not None]
        replayed = [(row.name, row.held_out[REPLAY]) for row in all_tasks(session, "general") if REPLAY in row.held_out]
        return cls(
            version=task.version if task is not None else None,
            rows=task.rows if task is not None else 0,
            held_out=dict(task.held_out) if task is not None else {},
            batches=frozenset(batch.id for batch in batches if batch.origin == "user"),
            paths=frozenset(path for batch in batches if batch.task == name and (path := batch.provenance.get("path"))),
            given=(*replayed, *sorted(given, key=lambda one: one[0] == name)),
        )


def _given(batch: BatchRow, name: str) -> str | None:
    """The rows of a task's batch: all of the task of this name, and what another task trains on, or may come to."""
    if batch.task == name or batch.state == "submitted":
        return batch.submitted_artifact
    return batch.artifact if batch.state == STORED else None


def given_rows(
    artifacts: ArtifactStore, given: Iterable[tuple[str, str]], progress: Callable[[str], object] = lambda _: None
) -> Iterator[Owned]:
    """The readable rows of these artifacts, each with its task."""
    number = 0
    for task, artifact in given:
        for _, row in read_examples(artifacts.fetch(artifact) / ROWS):
            if number % REPORT_EVERY == 0:
                progress(f"{number} rows that tasks have already")
            number += 1
            if isinstance(row, Example):
                yield task, row


def owners(rows: Iterable[Owned]) -> dict[str, str]:
    """The task of each row by its key; of several the last."""
    return {text_key(row): task for task, row in rows}


def near_given(candidates: Sequence[Example], rows: Iterable[Owned]) -> dict[int, str]:
    """The places of candidates that nearly repeat one of the rows, each with the row's task.

    Memory grows with the candidates alone. A row that came without a system turn and comes again with one is the same.
    """
    if not candidates:
        return {}
    common = common_runs(_asked(row) for row in candidates)
    index = SketchIndex()
    for row in candidates:
        index.add(Sketch.of(_asked(row), common=common))
    found: dict[int, str] = {}
    for task, row in rows:
        for place in index.near_places(Sketch.of(_asked(row), common=common)):
            if place not in found and _is_same_request(candidates[place], row):
                found[place] = task
        if len(found) == len(candidates):
            break
    return found


def _asked(row: Example) -> str:
    return "\n".join(message.content for message in row.prompt if message.role != "system")


def _is_same_request(one: Example, other: Example) -> bool:
    """Of two rows that ask nearly the same: whether no other instruction makes another answer right."""
    said, told = (_system(row) for row in (one, other))
    return not said or not told or one.answer == other.answer or Sketch.of(said).is_near(Sketch.of(told))


def _system(row: Example) -> str:
    return "\n".join(message.content for message in row.prompt if message.role == "system")
