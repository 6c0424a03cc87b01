"""Self-correction: from a weak answer to training examples whose gold a grader has verified.

Never an item of a pool, so that the probe stays honest, and never the student's word. Taught are the item itself where
no pool holds it, and its relatives (the family's perturbations), with the family's own worked solution; and judgements:
the student's mistake beside the solution, each to be called right or wrong.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Container, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain, islice, zip_longest
from typing import TypeVar

from ratchet.data.example import Example
from ratchet.errors import DataError
from ratchet.tasks import registry
from ratchet.tasks.family import Problem, TaskFamily, to_example
from ratchet.tasks.graders import problem_of
from ratchet.tasks.judge import RIGHT, WRONG, Judge, judgement

from miner.mining import PROBE, MinedItem

SOURCE = "correction"
_ROUNDING = 1e-6
Taught = TypeVar("Taught", Example, list[Example])


@dataclass
class Corrections:
    """What was made: examples by error class, and how many relatives were left out and why."""

    by_error: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)
    judged: int = 0


def corrections(
    mined: Iterable[MinedItem],
    held_out: Container[str],
    relatives: int,
    budget: int,
    told: Corrections,
    stopped: Collection[str] = (),
    class_share: float = 1.0,
) -> Iterator[Example]:
    """At most ``budget`` examples, up to ``relatives`` an item.

    Error classes take turns, and so do the items within a class: each class gets the same share, and what one has no
    use for goes to the others (max-min fairness), until it has had ``class_share`` of the budget. An item of no known
    family has no relatives and is passed over, and so is an item of a ``stopped`` error class.
    """
    seen: set[str] = set()
    by_class: dict[str, list[Iterator[Example]]] = {}
    for item in mined:
        lessons = islice(_lessons(item, held_out, seen, told, stopped), relatives)
        by_class.setdefault(error_class(item), []).append(lessons)
    most = class_cap(budget, class_share)
    shares = (islice(_in_turns(lessons), most) for lessons in by_class.values())
    for example in islice(_in_turns(shares), budget):
        told.by_error[str(example.metadata["error_class"])] += 1
        yield example


def judgements(
    mined: Iterable[MinedItem],
    held_out: Container[str],
    budget: int,
    bare: Callable[[str], str],
    told: Corrections,
    class_share: float = 1.0,
) -> Iterator[Example]:
    """Pairs of judge items on mistakes, at most ``budget`` items: the student's answer is wrong, the solution right.

    ``bare`` takes the answer out of what the model said. Only items that no pool holds, of families that can parse
    their own questions. Error classes take turns, as with ``corrections``.
    """
    by_class: dict[str, list[MinedItem]] = {}
    for item in mined:
        if item.error and item.key not in held_out:
            by_class.setdefault(error_class(item), []).append(item)
    most = class_cap(budget // 2, class_share)
    pairs = [(_pair(item, bare(item.answer)) for item in items) for items in by_class.values()]
    for pair in islice(_in_turns(islice(filter(None, each), most) for each in pairs), budget // 2):
        told.judged += len(pair)
        yield from pair


def class_cap(budget: int, share: float) -> int:
    """The most of so many examples that one error class may have; one at least."""
    return max(1, int(share * budget + _ROUNDING))


def lesson_budget(most: int, share: float, room: int, ordinary: int) -> int:
    """How many lessons a correction batch may hold: at most ``share`` of it, the rest being ordinary rows.

    Lessons alone, all of hard kinds, would teach a model to forget the rest. ``room`` is what the queue takes,
    ``ordinary`` how many rows there are to mix in.
    """
    return min(most, int(share * room), int(share / (1 - share) * ordinary))


def replay_size(lessons: int, share: float, batch: int) -> int:
    """Ordinary rows beside so many lessons: enough that these are no more than ``share``, and to fill a batch."""
    exact = lessons * (1 - share) / share
    return max(math.ceil(exact - _ROUNDING), batch - lessons)


def error_class(item: MinedItem) -> str:
    """``family:error``; for an answer that was right but shaky ``family:low_margin``."""
    return f"{item.cell[0]}:{item.error or item.category}"


def _in_turns(queues: Iterable[Iterable[Taught]]) -> Iterator[Taught]:
    """One of each, then a second of each, and so on; whoever has no more is passed over."""
    return (each for turn in zip_longest(*queues) for each in turn if each is not None)


def _lessons(
    item: MinedItem, held_out: Container[str], seen: set[str], told: Corrections, stopped: Collection[str]
) -> Iterator[Example]:
    family, problem = registry.find(item.example.family), problem_of(item.example)
    lesson_class = error_class(item)
    if family is None or problem is None:
        told.left_out["no known family"] += 1
        return
    if lesson_class in stopped:
        told.left_out["class stopped"] += 1
        return
    itself = [] if item.way == PROBE else [problem]
    for taught in chain(itself, family.perturb(problem, seed=0)):
        if taught.key in held_out:
            told.left_out["held out"] += 1
        elif taught.key in seen:
            told.left_out["repeated"] += 1
        elif not family.grade(taught, taught.solution).correct:
            told.left_out["gold not verified"] += 1
        else:
            seen.add(taught.key)
            yield _lesson(to_example(taught, SOURCE), lesson_class, item.key)


def _pair(item: MinedItem, answer: str) -> list[Example]:
    """The two judgements; empty where the item cannot be judged, or the answer is not wrong after all."""
    family, problem = registry.find(item.example.family), problem_of(item.example)
    if item.way == PROBE or family is None or problem is None or not _is_parsed(family, problem):
        return []
    try:
        pair = [judgement(problem, answer), judgement(problem, problem.solution)]
    except DataError:
        return []
    if [judged.gold for judged in pair] != [WRONG, RIGHT] or any(Judge().parse(j.question) != j for j in pair):
        return []
    return [_lesson(to_example(judged, SOURCE), error_class(item), item.key) for judged in pair]


def _is_parsed(family: TaskFamily, problem: Problem) -> bool:
    return family.parse(problem.question) == problem and problem.level in Judge.levels


def _lesson(example: Example, lesson_class: str, parent: str) -> Example:
    return example.model_copy(update={"metadata": {**example.metadata, "error_class": lesson_class, "parent": parent}})
