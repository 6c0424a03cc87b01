"""The training rows of users' tasks for mining and correction: which are asked, and the examples made of weak ones.

An example is the row with an answer that the champion found itself and the grader accepts (expert iteration, Anthony et
al., arXiv:1705.08439; RFT, Yuan et al., arXiv:2308.01825), else with the row's own answer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from random import Random

from ratchet.data.example import Example
from ratchet.errors import DataError
from ratchet.ledger.tables import TaskRow
from ratchet.systems import Work
from ratchet.tasks.graders import gold, grade_example, text_key
from ratchet.user_tasks.supply import corrections_over, stored_batches, stored_rows
from ratchet.user_tasks.task import Task, all_tasks
from sqlalchemy.orm import Session

from miner.correction_examples import CorrectionCounts, error_class
from miner.mined_items import ROWS, MinedItem

LEARNABLE = 0.2, 0.8
"""Success rates of the champion at which its own right answers teach most: below it hardly has any, above it knows."""

REPORT_EVERY = 5_000

OWN_ANSWERS = 2
"""Most answers of the champion's own for one row."""


def correctable_tasks(session: Session) -> list[TaskRow]:
    """The users' tasks that corrections may still help."""
    return [task for task in all_tasks(session, "user") if not corrections_over(task)]


def sampled_rows(work: Work, budget: int, known: Collection[str], seed: int) -> list[Example]:
    """At most ``budget`` training rows, shared by the tasks; those mined before only where there are no others."""
    with work.read() as session:
        tasks = [(Task.of(row), stored_batches(session, row.name)) for row in correctable_tasks(session)]
    tasks = [(task, batches) for task, batches in tasks if batches]
    found: list[Example] = []
    for place, (task, batches) in enumerate(tasks):
        size = (budget - len(found)) // (len(tasks) - place)
        rows = map(task.labelled, reported(work, stored_rows(work.artifacts, batches), f"rows of {task.name}"))
        found += _sample(rows, size, known, Random(f"{seed} {task.name} rows"))
    return found


def reported(work: Work, rows: Iterable[Example], what: str) -> Iterator[Example]:
    """The rows, with a report of progress now and then, since a task may have millions."""
    for number, row in enumerate(rows):
        if number % REPORT_EVERY == 0:
            work.progress(f"{number} {what}")
        yield row


def _sample(rows: Iterator[Example], size: int, known: Collection[str], random: Random) -> list[Example]:
    """A uniform sample of the rows that were not mined before, filled up with others; memory is that of the sample."""
    new, old = _Reservoir(size, random), _Reservoir(size, random)
    for row in rows:
        (old if text_key(row) in known else new).offer(row)
    return [*new.kept, *old.kept][:size]


class _Reservoir:
    """A uniform sample of a stream (algorithm R; Vitter, ACM TOMS 11:37-57, 1985)."""

    def __init__(self, size: int, random: Random):
        self.kept: list[Example] = []
        self._size, self._random, self._seen = size, random, 0

    def offer(self, row: Example) -> None:
        self._seen += 1
        if len(self.kept) < self._size:
            self.kept.append(row)
        elif (place := self._random.randrange(self._seen)) < self._size:
            self.kept[place] = row


def row_examples(
    items: Sequence[MinedItem],
    right: Mapping[str, Sequence[str]],
    samples: int,
    budget: int,
    counts: CorrectionCounts,
    backed_off: Collection[str] = (),
) -> list[Example]:
    """At most ``budget`` examples of weak training rows.

    ``right`` are the champion's right samples by key, of ``samples`` asked. Rows that it gets right sometimes come
    first, then those that it never does.
    """
    made: list[Example] = []
    for item in sorted(items, key=lambda item: _rank(right.get(item.key), samples)):
        if error_class(item) in backed_off:
            counts.left_out["class backed off"] += 1
            continue
        for example in _examples_of(item, right.get(item.key, ()))[: budget - len(made)]:
            made.append(example)
            counts.by_error[error_class(item)] += 1
    return made


def _rank(right: Sequence[str] | None, samples: int) -> int:
    """0 for a row that is learnable now, 1 for one that is too hard or was not sampled, 2 for one that is known."""
    rate = len(right) / samples if right is not None and samples else 0.0
    return 1 if rate < LEARNABLE[0] else 0 if rate <= LEARNABLE[1] else 2


def _examples_of(item: MinedItem, right: Sequence[str]) -> list[Example]:
    row = item.example
    marks = {"error_class": error_class(item), "parent": item.key}
    own = []
    for text in (text for text, _ in Counter(right).most_common()):
        if text.strip() != str(row.answer).strip() and _is_right(row, text):
            answer = row.messages[-1].model_copy(update={"content": text})
            metadata = {**row.metadata, **marks, "gold": gold(row), "answer_by": "rejection sampling"}
            own.append(row.model_copy(update={"messages": (*row.messages[:-1], answer), "metadata": metadata}))
    return own[:OWN_ANSWERS] or [row.model_copy(update={"metadata": {**row.metadata, **marks}})]


def _is_right(row: Example, text: str) -> bool:
    try:
        return grade_example(row, text).correct
    except DataError:
        return False


def split_items(
    items: Sequence[MinedItem], tasks: Collection[str], all_names: Collection[str], counts: CorrectionCounts
) -> tuple[list[MinedItem], list[MinedItem]]:
    """The items of families, and the training rows of ``tasks``; what is left of the users' tasks is counted."""
    families, rows = [], []
    for item in items:
        name = item.example.family
        if name not in all_names:
            families.append(item)
        elif item.found_by != ROWS:
            counts.left_out["held out"] += 1
        elif name not in tasks:
            counts.left_out["of a task that no longer improves"] += 1
        else:
            rows.append(item)
    return families, rows
