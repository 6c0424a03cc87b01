"""A task family: twice a number."""

from __future__ import annotations

import re
from collections.abc import Iterator
from random import Random
from typing import ClassVar

from ratchet.errors import DataError
from ratchet.tasks.family import Grade, Problem, Variant


class Double:
    """Level n asks for numbers of n digits."""

    name = "double"
    version = "1"
    levels = (1, 2, 3)
    errors: ClassVar = {"format": "no number", "wrong": "another number"}
    features: ClassVar = {"even": "the number is even", "odd": "the number is odd"}
    variant_kinds: tuple[str, ...] = ()

    def generate(self, level: int, seed: int) -> Problem:
        if level not in self.levels:
            raise DataError(f"double has levels 1 to {self.levels[-1]}, not {level}.")
        return _problem(Random(seed * 4 + level).randrange(10 ** (level - 1), 10**level))

    def capacity(self, level: int) -> int | None:
        return 9 * 10 ** (level - 1)

    def parse(self, question: str) -> Problem | None:
        match = re.fullmatch(r"twice ([1-9][0-9]{0,2})", question.strip())
        return _problem(int(match[1])) if match else None

    def grade(self, problem: Problem, answer: str) -> Grade:
        said = answer.strip()
        if not said.isdecimal():
            return Grade(correct=False, extracted=None, error="format")
        correct = said == problem.gold
        return Grade(correct=correct, extracted=said, error=None if correct else "wrong")

    def perturb(self, problem: Problem, seed: int) -> Iterator[Problem]:
        number = int(problem.gold) // 2
        neighbours = [number - 2, number - 1, number + 1, number + 2]
        Random(seed).shuffle(neighbours)
        return (_problem(near) for near in neighbours if near > 0 and len(str(near)) == problem.level)

    def variants(self, problem: Problem, seed: int) -> Iterator[Variant]:  # noqa: ARG002 - there are none
        yield from ()

    def traits(self, problem: Problem) -> frozenset[str]:
        return frozenset({"odd" if int(problem.gold) // 2 % 2 else "even"})


def _problem(number: int) -> Problem:
    question, gold = f"twice {number}", str(2 * number)
    return Problem(
        family="double", level=len(str(number)), key=f"double:{number}", question=question, gold=gold, solution=gold
    )
