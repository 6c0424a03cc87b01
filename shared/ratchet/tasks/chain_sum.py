"""Sums of a number below 50 and single digits, solved with a running total.

Level n has n + 1 terms: ``47+8+0=`` (level 2) is solved as ``47+8=55;55+0=55``. Only what follows the last ``=``
is graded; the trace tells the error class. The first term goes up to 49 so that level 1 has 500 items: of 100, a small
model learns 80 by heart, and 60 % of the held-out ones.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from random import Random
from typing import ClassVar

from ratchet.errors import DataError
from ratchet.tasks.family import Grade, Problem, Variant, each_once

_QUESTION = re.compile(r"((?:[0-9]|[1-4][0-9])(?:\+[0-9])+)=")
_STEP = re.compile(r"([0-9]{1,6})\+([0-9])=([0-9]{1,6})")
_NUMBER = re.compile(r"0|[1-9][0-9]{0,6}")
_FIRST_TERMS = 50
_DIGITS = 10


class ChainSum:
    """Sums with a running total."""

    name = "chain_sum"
    version = "1"
    levels = (1, 2, 3, 4, 5, 6)
    errors: ClassVar = {
        "format": "no number after the last equals sign",
        "truncated": "the sum stops before its last term",
        "operand": "a step adds other numbers than the running total and the next term",
        "operator": "a step subtracts or multiplies",
        "off_by_one": "the first wrong step is off by one",
        "carry": "the first wrong step is off by ten",
        "wrong": "the first wrong step is off by something else",
    }
    features: ClassVar = {
        "carry": "a step carries into the tens",
        "no_carry": "no step carries",
        "zero": "a term is 0",
        "double": "two neighbouring terms are equal",
        "from_20": "a running total reaches 20",
    }
    variant_kinds = ("swap",)

    def generate(self, level: int, seed: int) -> Problem:
        if level not in self.levels:
            raise DataError(f"{self.name} has levels 1 to {self.levels[-1]}, not {level}.")
        random = Random(seed * 16 + level)
        return _problem([random.randrange(_FIRST_TERMS), *(random.randrange(_DIGITS) for _ in range(level))])

    def capacity(self, level: int) -> int | None:
        return _FIRST_TERMS * _DIGITS**level

    def parse(self, question: str) -> Problem | None:
        match = _QUESTION.fullmatch(question.strip())
        terms = [int(term) for term in match[1].split("+")] if match else []
        return _problem(terms) if len(terms) - 1 in self.levels else None

    def grade(self, problem: Problem, answer: str) -> Grade:
        result = answer.rpartition("=")[2].strip()
        if result == problem.gold:
            return Grade(correct=True, extracted=result)
        if _NUMBER.fullmatch(result):
            return Grade(correct=False, extracted=result, error=_error(problem, answer))
        return Grade(correct=False, extracted=None, error="format" if result else _missing(answer))

    def perturb(self, problem: Problem, seed: int) -> Iterator[Problem]:
        """Sums with two terms swapped (same gold), then sums with one term changed; each once."""
        terms = _terms(problem)
        swapped, changed = _swaps(terms), _changes(terms)
        random = Random(seed)
        random.shuffle(swapped)
        random.shuffle(changed)
        return each_once(map(_problem, swapped + changed), problem)

    def variants(self, problem: Problem, seed: int) -> Iterator[Variant]:
        """The terms in other orders: a sum does not mind."""
        swaps = _swaps(_terms(problem))
        Random(seed).shuffle(swaps)
        for other in each_once(map(_problem, swaps), problem):
            yield Variant(kind="swap", problem=other)

    def traits(self, problem: Problem) -> frozenset[str]:
        terms = _terms(problem)
        totals = [sum(terms[:place]) for place in range(1, len(terms) + 1)]
        carries = any(total % _DIGITS + term >= _DIGITS for total, term in zip(totals, terms[1:], strict=False))
        found = {"carry" if carries else "no_carry"}
        found |= {"zero"} if 0 in terms else set()
        found |= {"double"} if any(a == b for a, b in itertools.pairwise(terms)) else set()
        return frozenset(found | ({"from_20"} if totals[-1] >= 20 else set()))


def _problem(terms: Sequence[int]) -> Problem:
    total, steps = terms[0], []
    for term in terms[1:]:
        steps.append(f"{total}+{term}={total + term}")
        total += term
    text = "+".join(map(str, terms))
    return Problem(
        family=ChainSum.name,
        level=len(terms) - 1,
        key=f"{ChainSum.name}:{text}",
        question=f"{text}=",
        gold=str(total),
        solution=";".join(steps),
    )


def _terms(problem: Problem) -> list[int]:
    return [int(term) for term in problem.question.rstrip("=").split("+")]


def _swaps(terms: list[int]) -> list[list[int]]:
    """Every exchange of two different terms that leaves only the first with two digits."""
    pairs = ((i, j) for i in range(len(terms)) for j in range(i + 1, len(terms)))
    swaps = []
    for i, j in pairs:
        other = list(terms)
        other[i], other[j] = other[j], other[i]
        if other != terms and max(other[1:]) < _DIGITS:
            swaps.append(other)
    return swaps


def _changes(terms: list[int]) -> list[list[int]]:
    """Every sum that differs by 1 to 3 in one term."""
    changes = []
    for place, term in enumerate(terms):
        limit = _FIRST_TERMS if place == 0 else _DIGITS
        near = (term + delta for delta in (-3, -2, -1, 1, 2, 3))
        changes += [[*terms[:place], value, *terms[place + 1 :]] for value in near if 0 <= value < limit]
    return changes


def _missing(answer: str) -> str:
    return "truncated" if answer.strip() else "format"


def _error(problem: Problem, answer: str) -> str:
    """The class of the first mistake in the trace; without a trace, of the result's distance from the gold."""
    terms = _terms(problem)
    steps = [tuple(map(int, step.groups())) for step in _STEP.finditer(answer)]
    total = terms[0]
    for (left, right, result), term in zip(steps, terms[1:], strict=False):
        if (left, right) != (total, term):
            return "operand"
        if result != total + term and result in (abs(total - term), total * term):
            return "operator"
        total += term
        if result != total:
            return _distance(result - total)
    if steps:
        return "truncated" if len(steps) < len(terms) - 1 else "operand"
    return _distance(int(answer.rpartition("=")[2]) - int(problem.gold))


def _distance(difference: int) -> str:
    return {1: "off_by_one", 10: "carry"}.get(abs(difference), "wrong")
