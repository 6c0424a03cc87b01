"""Reverse a row of letters: ``reverse:cab`` is answered ``bac``. Level n has n + 2 letters."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from random import Random
from string import ascii_lowercase
from typing import ClassVar

from ratchet.tasks.character_row import CharacterRow
from ratchet.tasks.family import Problem, Variant, each_once

_RENAMINGS = 8


class Reverse(CharacterRow):
    """Rows of small letters."""

    name = "reverse"
    prefix = "reverse"
    alphabet = ascii_lowercase
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

    def answer(self, row: str) -> str:
        return row[::-1]

    def mistake(self, gold: str, text: str) -> str:
        if text == gold[::-1]:
            return "copied"
        return "order" if sorted(text) == sorted(gold) else "wrong"

    def perturb(self, problem: Problem, seed: int) -> Iterator[Problem]:
        """Rows with two letters exchanged, then with one letter changed; each once."""
        letters, random = self.row(problem), Random(seed)
        swapped = [_swap(letters, i, j) for i, j in itertools.combinations(range(len(letters)), 2)]
        changed = self.changes(letters)
        random.shuffle(swapped)
        random.shuffle(changed)
        return each_once(map(self.problem, swapped + changed), problem)

    def variants(self, problem: Problem, seed: int) -> Iterator[Variant]:
        """The letters renamed, alike wherever they stand: reversing does not look at what they are."""
        letters, random = self.row(problem), Random(seed)
        others = ["".join(random.sample(self.alphabet, len(self.alphabet))) for _ in range(_RENAMINGS)]
        renamed = (letters.translate(str.maketrans(self.alphabet, other)) for other in others)
        for other in each_once(map(self.problem, renamed), problem):
            yield Variant(kind="rename", problem=other)

    def traits(self, problem: Problem) -> frozenset[str]:
        letters = self.row(problem)
        found = {"distinct" if len(set(letters)) == len(letters) else "repeat"}
        found |= {"neighbours"} if any(a == b for a, b in itertools.pairwise(letters)) else set()
        return frozenset(found | ({"same_ends"} if letters[0] == letters[-1] else set()))


def _swap(letters: str, i: int, j: int) -> str:
    return letters[:i] + letters[j] + letters[i + 1 : j] + letters[i] + letters[j + 1 :]
