"""Budgeted search for weak answers: a bandit over family × level × move that asks more where weak answers were found.

The moves at a level are ``fresh`` (a new problem), ``near`` (a near relative of a weak one) and every kind of variant
that the family has (of a problem that the model has right). Each arm's yield, the share of asked problems that were
answered wrong, has a Beta posterior; every slot of a round goes to the arm with the largest draw from it (Thompson,
Biometrika 25:285-294, 1933). The yields of the search before are a prior worth ``PRIOR_WEIGHT`` questions an arm
at most.

Items of the pools, items mined before and questions already asked are excluded.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from random import Random

from ratchet.data.example import Example
from ratchet.tasks import registry
from ratchet.tasks.family import Problem, to_example
from ratchet.tasks.graders import problem_of

from miner.mined_items import GradedAnswer, MinedItem, categorise, mined_item

FRESH, NEAR = "fresh", "near"
SOURCE = "mining"
PRIOR_WEIGHT = 20.0
ROUND_ITEMS = 48
"""Questions between two decisions: a batch that keeps a GPU busy, and five decisions in the default budget."""

_MOST_MISSES = 200
"""Draws in a row without a problem that may be asked after which an arm is closed."""
_PER_START = 2
"""Questions made from one start item, so that none uses the whole budget."""

Cell = tuple[str, int]
Ask = Callable[[list[Example]], list[GradedAnswer]]
"""Answers of the model, in order."""


@dataclass(frozen=True)
class Arm:
    """One move at one level."""

    family: str
    level: int
    move: str

    @property
    def name(self) -> str:
        return f"{self.family}/{self.level} {self.move}"

    @property
    def cell(self) -> Cell:
        return self.family, self.level


@dataclass
class Yield:
    """``weak`` of ``asked`` problems were answered wrong, and the prior from an earlier search."""

    weak: int = 0
    asked: int = 0
    prior_weak: float = 0.0
    prior_asked: float = 0.0

    def draw(self, random: Random) -> float:
        """A draw from Beta(1 + weak, 1 + the others)."""
        weak, asked = self.weak + self.prior_weak, self.asked + self.prior_asked
        return random.betavariate(1 + weak, 1 + asked - weak)


@dataclass(frozen=True)
class Question:
    """A problem to ask, and by which arm; ``parent`` is the key of the problem that it was made from."""

    arm: Arm
    problem: Problem
    parent: str | None

    @property
    def is_variant(self) -> bool:
        return self.arm.move not in (FRESH, NEAR)


@dataclass
class Search:
    """What was found. ``yields`` has the questions of each arm that were answered wrong; right answers of low margin
    are kept as found, and count for no arm."""

    found: list[MinedItem] = field(default_factory=list)
    yields: dict[str, Yield] = field(default_factory=dict)

    @property
    def asked(self) -> int:
        return sum(each.asked for each in self.yields.values())


def search(
    cells: Sequence[Cell],
    answered: Sequence[GradedAnswer],
    ask: Ask,
    *,
    budget: int,
    round_items: int = ROUND_ITEMS,
    excluded: Container[str],
    seed: int,
    before: Mapping[str, tuple[int, int]] | None = None,
) -> Search:
    """Ask at most ``budget`` problems of these levels, in rounds, and keep the weak ones.

    ``answered`` are the model's known answers there (of the probe), which ``near`` and the variants start from;
    ``excluded`` keys are never asked; ``before`` are (weak, asked) by arm of an earlier search.
    """
    arms = arms_of(cells)
    state = Search(yields={arm.name: _prior((before or {}).get(arm.name)) for arm in arms})
    problems = ProblemSource(arms, answered, excluded, seed)
    random = Random(f"{seed} bandit")
    while state.asked < budget:
        questions = _round(arms, state, problems, random, min(round_items, budget - state.asked))
        if not questions:
            break
        answers = ask([to_example(question.problem, SOURCE) for question in questions])
        for question, answer in zip(questions, answers, strict=True):
            _record(state, problems, question, answer)
    return state


def arms_of(cells: Sequence[Cell]) -> list[Arm]:
    """Every move at every level; levels of no known family have none."""
    arms = []
    for family, level in cells:
        found = registry.find(family)
        if found is not None:
            arms += [Arm(family, level, move) for move in (FRESH, NEAR, *found.variant_kinds)]
    return arms


class ProblemSource:
    """Makes the questions of each arm. An arm that has nothing left is closed."""

    def __init__(self, arms: Sequence[Arm], answered: Sequence[GradedAnswer], excluded: Container[str], seed: int):
        self._excluded = excluded
        self._asked: set[str] = set()
        self._random = Random(f"{seed} quarry")
        self._right: dict[Cell, deque[Problem]] = {arm.cell: deque() for arm in arms}
        self._weak: dict[Cell, deque[Problem]] = {arm.cell: deque() for arm in arms}
        self._streams = {arm: self._questions(arm) for arm in arms}
        for answer in answered:
            self.remember(answer)

    def next(self, arm: Arm) -> Question | None:
        """The arm's next question; None if it has none at present."""
        return next(self._streams[arm], None)

    def remember(self, answer: GradedAnswer) -> None:
        """An answered problem is a start for variants where it was right, for near relatives where it was wrong."""
        problem = problem_of(answer.example)
        if problem is not None and (problem.family, problem.level) in self._right:
            known = self._right if answer.is_right else self._weak
            known[problem.family, problem.level].append(problem)

    def reopen(self, arm: Arm) -> None:
        """Reopen arms, since there may be new start items."""
        self._streams[arm] = self._questions(arm)

    def _questions(self, arm: Arm) -> Iterator[Question]:
        misses = 0
        for problem, parent in self._made(arm):
            if problem.key in self._excluded or problem.key in self._asked:
                misses += 1
                if misses >= _MOST_MISSES:
                    return
                continue
            misses = 0
            self._asked.add(problem.key)
            yield Question(arm, problem, parent)

    def _made(self, arm: Arm) -> Iterator[tuple[Problem, str | None]]:
        family = registry.get(arm.family)
        if arm.move == FRESH:
            while True:
                yield family.generate(arm.level, self._random.getrandbits(48)), None
        starts = self._weak[arm.cell] if arm.move == NEAR else self._right[arm.cell]
        while starts:
            start = starts.popleft()
            seed = self._random.getrandbits(32)
            if arm.move == NEAR:
                yield from ((relative, start.key) for relative in islice(family.perturb(start, seed), _PER_START))
            else:
                variants = islice(family.variants(start, seed), _PER_START)
                yield from ((each.problem, start.key) for each in variants if each.kind == arm.move)


def _prior(before: tuple[int, int] | None) -> Yield:
    weak, asked = before or (0, 0)
    shrink = min(1.0, PRIOR_WEIGHT / asked) if asked else 0.0
    return Yield(prior_weak=weak * shrink, prior_asked=asked * shrink)


def _round(arms: list[Arm], state: Search, problems: ProblemSource, random: Random, size: int) -> list[Question]:
    """One round's questions, each slot to the arm with the largest draw among those that have questions."""
    open_arms = list(arms)
    for arm in open_arms:
        problems.reopen(arm)
    questions: list[Question] = []
    while open_arms and len(questions) < size:
        best = max(open_arms, key=lambda arm: state.yields[arm.name].draw(random))
        question = problems.next(best)
        if question is None:
            open_arms.remove(best)
        else:
            questions.append(question)
    return questions


def _record(state: Search, problems: ProblemSource, question: Question, answer: GradedAnswer) -> None:
    category = categorise(answer, is_variant=question.is_variant)
    arm_yield = state.yields[question.arm.name]
    arm_yield.asked += 1
    arm_yield.weak += not answer.is_right
    if category is not None:
        state.found.append(mined_item(answer, category, found_by=question.arm.move, parent=question.parent))
    problems.remember(answer)
