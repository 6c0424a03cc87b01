"""Reverse a row of letters: ``reverse:cab`` is answered ``bac``. Level n has n + 2 letters."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from random import Random
from typing import ClassVar

from ratchet.errors import DataError
from ratchet.tasks.family import Grade, Problem, Variant

_QUESTION = re.compile(r"reverse:([a-z]+)")
_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_RENAMINGS = 8


class Reverse:
    """Rows of small letters."""

    name = "reverse"
    version = "1"
    levels = (1, 2, 3, 4, 5, 6)
    errors: ClassVar = {
        "format": "something else than small letters",
        "truncated": "the answer stops early",
        "length": "too many or too few letters",
        "copied": "the row as it stood, not reversed",
        "order": "the right letters in a wrong order",
        "wrong": "other letters",
    }
    features: ClassVar = {
        "repeat": "a letter stands in the row twice",
        "distinct": "all letters differ",
        "neighbours": "two equal letters stand side by side",
        "same_ends": "the row begins and ends with the same letter",
    }
    variant_kinds = ("rename",)

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

    def variants(self, problem: Problem, seed: int) -> Iterator[Variant]:
        """The letters renamed, alike wherever they stand: reversing does not look at what they are."""
        letters = problem.question.removeprefix("reverse:")
        random, seen = Random(seed), {problem.key}
        for _ in range(_RENAMINGS):
            renaming = str.maketrans(_LETTERS, "".join(random.sample(_LETTERS, len(_LETTERS))))
            other = _problem(letters.translate(renaming))
            if other.key not in seen:
                seen.add(other.key)
                yield Variant(kind="rename", problem=other)

    def traits(self, problem: Problem) -> frozenset[str]:
        letters = problem.question.removeprefix("reverse:")
        found = {"distinct" if len(set(letters)) == len(letters) else "repeat"}
        found |= {"neighbours"} if any(a == b for a, b in itertools.pairwise(letters)) else set()
        return frozenset(found | ({"same_ends"} if letters[0] == letters[-1] else set()))


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
