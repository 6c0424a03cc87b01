"""Sort a row of digits: ``sort:72502`` is answered ``02257``. Level n has n + 2 digits."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from string import digits as all_digits
from typing import ClassVar

from ratchet.tasks.character_row import CharacterRow
from ratchet.tasks.family import Problem, Variant, each_once

_SHUFFLES = 8


class SortDigits(CharacterRow):
    """Rows of digits."""

    name = "sort_digits"
    prefix = "sort"
    alphabet = all_digits
    errors: ClassVar = {
        "format": "something else than digits",
        "truncated": "the answer stops early",
        "length": "too many or too few digits",
        "lost_digit": "other digits than asked",
        "descending": "sorted the other way round",
        "order": "the right digits in a wrong order",
    }
    features: ClassVar = {
        "repeat": "a digit stands in the row twice",
        "distinct": "all digits differ",
        "sorted": "the row is in order already",
        "descending": "the row is in the opposite order",
        "zero": "a digit is 0",
    }
    variant_kinds = ("shuffle",)

    def answer(self, row: str) -> str:
        return "".join(sorted(row))

    def mistake(self, gold: str, text: str) -> str:
        if sorted(text) != sorted(gold):
            return "lost_digit"
        return "descending" if text == gold[::-1] else "order"

    def perturb(self, problem: Problem, seed: int) -> Iterator[Problem]:
        """The same digits in other orders (same gold), then one digit changed; each once."""
        digits, random = self.row(problem), Random(seed)
        shuffled, changed = _shuffles(digits, random), self.changes(digits)
        random.shuffle(changed)
        return each_once(map(self.problem, shuffled + changed), problem)

    def variants(self, problem: Problem, seed: int) -> Iterator[Variant]:
        """The same digits in other orders."""
        for other in each_once(map(self.problem, _shuffles(self.row(problem), Random(seed))), problem):
            yield Variant(kind="shuffle", problem=other)

    def traits(self, problem: Problem) -> frozenset[str]:
        digits = self.row(problem)
        found = {"distinct" if len(set(digits)) == len(digits) else "repeat"}
        found |= {"sorted"} if digits == problem.gold else set()
        found |= {"descending"} if digits == problem.gold[::-1] and digits != problem.gold else set()
        return frozenset(found | ({"zero"} if "0" in digits else set()))


def _shuffles(digits: str, random: Random) -> list[str]:
    return ["".join(random.sample(digits, len(digits))) for _ in range(_SHUFFLES)]
