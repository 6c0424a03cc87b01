"""The family of judgements: is this answer right or wrong? A pair of such items, one with the gold answer and one with
a model's mistake, shows the difference between them.

The answer to ``judge:47+8= | 47+8=54`` is ``wrong``. The grader of the question's own family decides what is right, so
a judgement has a verified gold answer like any other item. An item has the level of the problem that it is about, and
is held out exactly if that problem is (see ``subject_key``).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from random import Random
from typing import ClassVar

from ratchet.errors import DataError
from ratchet.tasks.family import Grade, Problem, TaskFamily, Variant, each_once

NAME = "judge"
RIGHT, WRONG = "right", "wrong"
MAX_ANSWER_LENGTH = 400
"""Maximum number of characters of an answer to judge."""

_OPENING = f"{NAME}:"
_BAR = " | "
_MARK = "#judge:"
_BUILT_IN = ("chain_sum", "reverse", "sort_digits")


class Judge:
    """Judgements on answers to questions of those other families that can parse their own questions."""

    name = NAME
    version = "1"
    levels = (1, 2, 3, 4, 5, 6)
    errors: ClassVar = {
        "format": "neither right nor wrong",
        "too_strict": "a right answer was called wrong",
        "too_lenient": "a wrong answer was called right",
    }
    features: ClassVar = {"right": "the answer to judge is right", "wrong": "the answer to judge is wrong"}
    variant_kinds: tuple[str, ...] = ()

    def generate(self, level: int, seed: int) -> Problem:
        """Half of the answers are right; a wrong one is the solution of a similar problem."""
        if level not in self.levels:
            raise DataError(f"{self.name} has levels 1 to {self.levels[-1]}, not {level}.")
        from ratchet.tasks import registry

        random = Random(seed * 16 + level)
        family = registry.get(random.choice(_BUILT_IN))
        problem = family.generate(level, random.getrandbits(40))
        answer = problem.solution
        if random.random() < 0.5:
            relatives = family.perturb(problem, seed)
            answer = next((other.solution for other in relatives if other.gold != problem.gold), answer)
        return judgement(problem, answer)

    def capacity(self, level: int) -> int | None:  # noqa: ARG002 - the number of answers is unlimited
        return None

    def parse(self, question: str) -> Problem | None:
        text = question.strip()
        asked, bar, answer = text.removeprefix(_OPENING).partition(_BAR)
        if not text.startswith(_OPENING) or not bar or not answer.strip() or len(answer) > MAX_ANSWER_LENGTH:
            return None
        problem = _asked(asked)
        return None if problem is None or problem.level not in self.levels else judgement(problem, answer)

    def grade(self, problem: Problem, answer: str) -> Grade:
        said = answer.strip()
        if said == problem.gold:
            return Grade(correct=True, extracted=said)
        if said not in (RIGHT, WRONG):
            return Grade(correct=False, extracted=None, error="format")
        return Grade(correct=False, extracted=said, error="too_strict" if said == WRONG else "too_lenient")

    def perturb(self, problem: Problem, seed: int) -> Iterator[Problem]:
        """For each similar question, a judgement on the same answer, then one on the question's own solution."""
        asked, _, answer = problem.question.removeprefix(_OPENING).partition(_BAR)
        base = _asked(asked)
        if base is None:
            return
        relatives = _family_of(base).perturb(base, seed)
        judged = (judgement(relative, said) for relative in relatives for said in (answer, relative.solution))
        yield from each_once(judged, problem)

    def variants(self, problem: Problem, seed: int) -> Iterator[Variant]:  # noqa: ARG002 - there are none
        yield from ()

    def traits(self, problem: Problem) -> frozenset[str]:
        return frozenset({problem.gold})


def judgement(problem: Problem, answer: str) -> Problem:
    """A judgement on an answer to a problem, with the gold from the problem's grader. Raises DataError for an answer
    that is empty or too long."""
    text = answer.strip()
    if not text or len(text) > MAX_ANSWER_LENGTH or _BAR in problem.question:
        raise DataError(f"an answer to judge has 1 to {MAX_ANSWER_LENGTH} characters, and its question no {_BAR!r}.")
    gold = RIGHT if _family_of(problem).grade(problem, text).correct else WRONG
    digest = hashlib.sha256(text.encode(errors="replace")).hexdigest()[:16]
    return Problem(
        family=NAME,
        level=problem.level,
        key=f"{problem.key}{_MARK}{digest}",
        question=f"{_OPENING}{problem.question}{_BAR}{text}",
        gold=gold,
        solution=gold,
    )


def subject_key(key: str) -> str:
    """The key of the problem that a judgement is about; any other key unchanged."""
    return key.partition(_MARK)[0]


def _asked(question: str) -> Problem | None:
    """The problem of the one family that knows the question. There are no judgements on judgements."""
    from ratchet.tasks import registry

    names = (name for name in registry.known() if ":" not in name and name != NAME)
    found = (registry.get(name).parse(question) for name in names)
    return next((problem for problem in found if problem is not None), None)


def _family_of(problem: Problem) -> TaskFamily:
    from ratchet.tasks import registry

    return registry.get(problem.family)
