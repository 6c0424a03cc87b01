"""Correction examples: from a weak answer to training examples whose gold a grader has verified.

No item of a pool becomes an example, so that the probe stays a fair test, and no unverified answer of the model. The
examples are the item itself if no pool holds it, and its relatives (the family's perturbations), with the family's
worked solution; and judgements: the model's mistake and the solution, each to be called right or wrong.
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

from miner.mined_items import PROBE, MinedItem

SOURCE = "correction"
_ROUNDING = 1e-6
Made = TypeVar("Made", Example, list[Example])


@dataclass
class CorrectionCounts:
    """Examples made by error class, relatives left out by reason, and examples that are judgements."""

    by_error: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)
    judged: int = 0


def correction_examples(
    mined: Iterable[MinedItem],
    held_out: Container[str],
    relatives: int,
    budget: int,
    counts: CorrectionCounts,
    backed_off: Collection[str] = (),
    class_share: float = 1.0,
) -> Iterator[Example]:
    """At most ``budget`` examples, up to ``relatives`` an item.

    Error classes take turns, and so do the items within a class: each class gets the same share, what it
    cannot use goes to the others (max-min fairness), and none gets more than ``class_share`` of the budget. Items of no
    known family, which have no relatives, and of a ``backed_off`` error class are skipped.
    """
    seen: set[str] = set()
    by_class: dict[str, list[Iterator[Example]]] = {}
    for item in mined:
        made = islice(_examples_from(item, held_out, seen, counts, backed_off), relatives)
        by_class.setdefault(error_class(item), []).append(made)
    most = class_cap(budget, class_share)
    shares = (islice(_in_turns(made), most) for made in by_class.values())
    for example in islice(_in_turns(shares), budget):
        counts.by_error[str(example.metadata["error_class"])] += 1
        yield example


def judgement_examples(
    mined: Iterable[MinedItem],
    held_out: Container[str],
    budget: int,
    bare: Callable[[str], str],
    counts: CorrectionCounts,
    class_share: float = 1.0,
) -> Iterator[Example]:
    """Pairs of judge items on mistakes, at most ``budget`` items: the model's answer is wrong, the solution right.

    ``bare`` extracts the answer from the model's text. Only items that no pool holds, of families that can parse
    their own questions. Error classes take turns, as with ``correction_examples``.
    """
    by_class: dict[str, list[MinedItem]] = {}
    for item in mined:
        if item.error and item.key not in held_out:
            by_class.setdefault(error_class(item), []).append(item)
    most = class_cap(budget // 2, class_share)
    pairs = [(_pair(item, bare(item.answer)) for item in items) for items in by_class.values()]
    for pair in islice(_in_turns(islice(filter(None, each), most) for each in pairs), budget // 2):
        counts.judged += len(pair)
        yield from pair


def class_cap(budget: int, share: float) -> int:
    """Most examples of ``budget`` that one error class may have; at least one."""
    return max(1, int(share * budget + _ROUNDING))


def example_budget(most: int, share: float, room: int, ordinary: int) -> int:
    """How many correction examples a batch may hold: at most ``share`` of it, the rest being ordinary rows.

    Correction examples alone, all of hard kinds, would make a model forget the rest. ``room`` is the
    number of examples that the queue can take, ``ordinary`` the number of rows to mix in.
    """
    return min(most, int(share * room), int(share / (1 - share) * ordinary))


def replay_size(examples: int, share: float, batch: int) -> int:
    """Ordinary rows to mix in, so that the correction examples are at most ``share`` of the batch, and it is filled."""
    exact = examples * (1 - share) / share
    return max(math.ceil(exact - _ROUNDING), batch - examples)


def error_class(item: MinedItem) -> str:
    """``family:error``; for a right answer of low margin ``family:low_margin``."""
    return f"{item.cell[0]}:{item.error or item.category}"


def _in_turns(queues: Iterable[Iterable[Made]]) -> Iterator[Made]:
    """One of each, then a second of each, and so on; an exhausted queue is skipped."""
    return (each for turn in zip_longest(*queues) for each in turn if each is not None)


def _examples_from(
    item: MinedItem, held_out: Container[str], seen: set[str], counts: CorrectionCounts, backed_off: Collection[str]
) -> Iterator[Example]:
    family, problem = registry.find(item.example.family), problem_of(item.example)
    of_class = error_class(item)
    if family is None or problem is None:
        counts.left_out["no known family"] += 1
        return
    if of_class in backed_off:
        counts.left_out["class backed off"] += 1
        return
    itself = [] if item.found_by == PROBE else [problem]
    for relative in chain(itself, family.perturb(problem, seed=0)):
        if relative.key in held_out:
            counts.left_out["held out"] += 1
        elif relative.key in seen:
            counts.left_out["repeated"] += 1
        elif not family.grade(relative, relative.solution).correct:
            counts.left_out["gold not verified"] += 1
        else:
            seen.add(relative.key)
            yield _marked(to_example(relative, SOURCE), of_class, item.key)


def _pair(item: MinedItem, answer: str) -> list[Example]:
    """The two judgements; empty where the item cannot be judged, or the answer turns out to be right."""
    family, problem = registry.find(item.example.family), problem_of(item.example)
    if item.found_by == PROBE or family is None or problem is None or not _is_parsed(family, problem):
        return []
    try:
        pair = [judgement(problem, answer), judgement(problem, problem.solution)]
    except DataError:
        return []
    if [judged.gold for judged in pair] != [WRONG, RIGHT] or any(Judge().parse(j.question) != j for j in pair):
        return []
    return [_marked(to_example(judged, SOURCE), error_class(item), item.key) for judged in pair]


def _is_parsed(family: TaskFamily, problem: Problem) -> bool:
    return family.parse(problem.question) == problem and problem.level in Judge.levels


def _marked(example: Example, of_class: str, parent: str) -> Example:
    return example.model_copy(update={"metadata": {**example.metadata, "error_class": of_class, "parent": parent}})
