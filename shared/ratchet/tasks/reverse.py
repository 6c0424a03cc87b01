"""Reverse a row of letters: ``reverse c a b`` is answered ``b a c``. Level n has n + 2 letters.

Letters stand apart so that no tokenizer merges them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from random import Random

from ratchet.errors import DataError
from ratchet.tasks.family import Grade, Problem

_QUESTION = re.compile(r"reverse ([a-z](?: [a-z])*)")
_LETTERS = "abcdefghijklmnopqrstuvwxyz"


class Reverse:
    """Error classes: ``format``, ``truncated``, ``length``, ``copied`` (not reversed), ``order`` (the right letters),
    ``wrong``."""

    name = "reverse"
    version = "1"
    levels = (1, 2, 3, 4, 5, 6)

    def generate(self, level: int, seed: int) -> Problem:
        if level not in self.levels:
            raise DataError(f"{self.name} has levels 1 to {self.levels[-1]}, not {level}.")
        random = Random(seed * 16 + level)
        return _problem([random.choice(_LETTERS) for _ in range(level + 2)])

    def capacity(self, level: int) -> int | None:
        return int(len(_LETTERS) ** (level + 2))

    def parse(self, question: str) -> Problem | None:
        match = _QUESTION.fullmatch(question.strip())
        letters = match[1].split(" ") if match else []
        return _problem(letters) if len(letters) - 2 in self.levels else None

    def grade(self, problem: Problem, answer: str) -> Grade:
        letters = answer.split()
        text = " ".join(letters)
        if text == problem.gold:
            return Grade(correct=True, extracted=text)
        if not letters or any(letter not in _LETTERS for letter in letters):
            return Grade(correct=False, extracted=None, error="format")
        return Grade(correct=False, extracted=text, error=_error(problem.gold.split(" "), letters))

    def perturb(self, problem: Problem, seed: int) -> Iterator[Problem]:
        """Rows with two letters exchanged, then with one letter changed; each once."""
        letters = problem.question.removeprefix("reverse ").split(" ")
        places = range(len(letters))
        swapped = [_swap(letters, i, j) for i in places for j in places[i + 1 :]]
        changed = [[*letters[:i], letter, *letters[i + 1 :]] for i in places for letter in _LETTERS]
        random = Random(seed)
        random.shuffle(swapped)
        random.shuffle(changed)
        seen = {problem.key}
        for relative in map(_problem, swapped + changed):
            if relative.key not in seen:
                seen.add(relative.key)
                yield relative


def _problem(letters: list[str]) -> Problem:
    gold = " ".join(reversed(letters))
    return Problem(
        family=Reverse.name,
        level=len(letters) - 2,
        key=f"{Reverse.name}:{''.join(letters)}",
        question="reverse " + " ".join(letters),
        gold=gold,
        solution=gold,
    )


def _swap(letters: list[str], i: int, j: int) -> list[str]:
    other = list(letters)
    other[i], other[j] = other[j], other[i]
    return other


def _error(gold: list[str], letters: list[str]) -> str:
    if len(letters) < len(gold) and gold[: len(letters)] == letters:
        return "truncated"
    if len(letters) != len(gold):
        return "length"
    if letters == gold[::-1]:
        return "copied"
    return "order" if sorted(letters) == sorted(gold) else "wrong"
