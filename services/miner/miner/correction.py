"""Self-correction: from a weak answer to training examples whose gold a grader has verified.

Never the probe item itself, so that the probe stays honest, and never the student's word: what is taught are relatives
of the item (the family's perturbations) with the family's own worked solution.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice, zip_longest

from ratchet.data.example import Example
from ratchet.tasks import registry
from ratchet.tasks.family import Grade, to_example
from ratchet.tasks.graders import grade_example, problem_of

from miner.mining import MinedItem


@dataclass
class Corrections:
    """What was made: examples by error class, and how many relatives were left out and why."""

    by_error: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)


def corrections(
    mined: Iterable[MinedItem], held_out: Container[str], relatives: int, budget: int, told: Corrections
) -> Iterator[Example]:
    """At most ``budget`` examples, up to ``relatives`` an item; all items get one before any gets a second.

    An item of no known family has no relatives and is passed over.
    """
    seen: set[str] = set()
    lessons = [islice(_lessons(item, held_out, seen, told), relatives) for item in mined]
    rounds = (lesson for turn in zip_longest(*lessons) for lesson in turn if lesson is not None)
    for example in islice(rounds, budget):
        told.by_error[str(example.metadata["error_class"])] += 1
        yield example


def lesson_budget(most: int, share: float, room: int, ordinary: int) -> int:
    """How many lessons a correction batch may hold: at most ``share`` of it, the rest being ordinary rows.

    Lessons alone, all of hard kinds, would teach a model to forget the rest. ``room`` is what the queue takes,
    ``ordinary`` how many rows there are to mix in.
    """
    return min(most, int(share * room), int(share / (1 - share) * ordinary))


def replay_size(lessons: int, share: float, batch: int) -> int:
    """Ordinary rows beside so many lessons: enough that these are no more than ``share``, and to fill a batch."""
    return max(math.ceil(lessons * (1 - share) / share), batch - lessons)


def error_class(item: MinedItem) -> str:
    """The family's word for what went wrong; the mining category where the answer was right but shaky."""
    grade: Grade = grade_example(item.example, item.answer)
    return grade.error or item.category


def _lessons(item: MinedItem, held_out: Container[str], seen: set[str], told: Corrections) -> Iterator[Example]:
    family, problem = registry.find(item.example.family), problem_of(item.example)
    if family is None or problem is None:
        told.left_out["no known family"] += 1
        return
    lesson_class = error_class(item)
    for relative in family.perturb(problem, seed=0):
        if relative.key in held_out:
            told.left_out["held out"] += 1
        elif relative.key in seen:
            told.left_out["repeated"] += 1
        elif not family.grade(relative, relative.solution).correct:
            told.left_out["gold not verified"] += 1
        else:
            seen.add(relative.key)
            yield _lesson(to_example(relative, "correction"), lesson_class, item.key)


def _lesson(example: Example, lesson_class: str, parent: str) -> Example:
    return example.model_copy(update={"metadata": {**example.metadata, "error_class": lesson_class, "parent": parent}})
