"""Reverse a row of letters: ``reverse:cab`` is answered ``bac``. Level n has n + 2 letters."""

from __future__ import annotations

import re
from collections.abc import Iterator
from random import Random

from ratchet.errors import DataError
from ratchet.tasks.family import Grade, Problem

_QUESTION = re.compile(r"reverse:([a-z]+)")
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
        return _problem("".join(random.choice(_LETTERS) for _ in range(level + 2)))

    def capacity(self, level: int) -> int | None:
        return int(len(_LETTERS) ** (level + 2))

    def parse(self, question: str) -> Problem | None:
        match = _QUESTION.fullmatch(question.strip())
        return _problem(match[1]) if match and len(match[1]) - 2 in self.levels else None

    def grade(self, problem: Problem, answer: str) -> Grade:
        text = answer.strip()
        if text == problem.gold:
            return Grade(correct=True, extracted=text)
        if not re.fullmatch("[a-z]+", text):
            return Grade(correct=False, extracted=None, error="format")
        return Grade(correct=False, extracted=text, error=_error(problem.gold, text))

    def perturb(self, problem: Problem, seed: int) -> Iterator[Problem]:
        """Rows with two letters exchanged, then with one letter changed; each once."""
        letters = problem.question.removeprefix("reverse:")
        places = range(len(letters))
        swapped = [_swap(letters, i, j) for i in places for j in places[i + 1 :]]
        changed = [letters[:i] + letter + letters[i + 1 :] for i in places for letter in _LETTERS]
        random = Random(seed)
        random.shuffle(swapped)
        random.shuffle(changed)
        seen = {problem.key}
        for relative in map(_problem, swapped + changed):
            if relative.key not in seen:
                seen.add(relative.key)
                yield relative


def _problem(letters: str) -> Problem:
    gold = letters[::-1]
    return Problem(
        family=Reverse.name,
        level=len(letters) - 2,
        key=f"{Reverse.name}:{letters}",
        question=f"reverse:{letters}",
        gold=gold,
        solution=gold,
    )


def _swap(letters: str, i: int, j: int) -> str:
    return letters[:i] + letters[j] + letters[i + 1 : j] + letters[i] + letters[j + 1 :]


def _error(gold: str, text: str) -> str:
    if len(text) < len(gold) and gold.startswith(text):
        return "truncated"
    if len(text) != len(gold):
        return "length"
    if text == gold[::-1]:
        return "copied"
    return "order" if sorted(text) == sorted(gold) else "wrong"
