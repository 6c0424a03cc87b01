"""Sort a row of digits: ``sort:72502`` is answered ``02257``. Level n has n + 2 digits."""

from __future__ import annotations

import re
from collections.abc import Iterator
from random import Random
from typing import ClassVar

from ratchet.errors import DataError
from ratchet.tasks.family import Grade, Problem, Variant

_QUESTION = re.compile(r"sort:([0-9]+)")
_DIGITS = "0123456789"
_SHUFFLES = 8


class SortDigits:
    """Rows of digits."""

    name = "sort_digits"
    version = "1"
    levels = (1, 2, 3, 4, 5, 6)
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

    def generate(self, level: int, seed: int) -> Problem:
        if level not in self.levels:
            raise DataError(f"{self.name} has levels 1 to {self.levels[-1]}, not {level}.")
        random = Random(seed * 16 + level)
        return _problem("".join(random.choice(_DIGITS) for _ in range(level + 2)))

    def capacity(self, level: int) -> int | None:
        return int(len(_DIGITS) ** (level + 2))

    def parse(self, question: str) -> Problem | None:
        match = _QUESTION.fullmatch(question.strip())
        return _problem(match[1]) if match and len(match[1]) - 2 in self.levels else None

    def grade(self, problem: Problem, answer: str) -> Grade:
        text = answer.strip()
        if text == problem.gold:
            return Grade(correct=True, extracted=text)
        if not re.fullmatch("[0-9]+", text):
            return Grade(correct=False, extracted=None, error="format")
        return Grade(correct=False, extracted=text, error=_error(problem.gold, text))

    def perturb(self, problem: Problem, seed: int) -> Iterator[Problem]:
        """The same digits in other orders (same gold), then one digit changed; each once."""
        random = Random(seed)
        digits = problem.question.removeprefix("sort:")
        shuffled = _shuffles(digits, random)
        changed = [digits[:i] + digit + digits[i + 1 :] for i in range(len(digits)) for digit in _DIGITS]
        random.shuffle(changed)
        seen = {problem.key}
        for relative in map(_problem, shuffled + changed):
            if relative.key not in seen:
                seen.add(relative.key)
                yield relative

    def variants(self, problem: Problem, seed: int) -> Iterator[Variant]:
        """The same digits in other orders."""
        seen = {problem.key}
        for other in map(_problem, _shuffles(problem.question.removeprefix("sort:"), Random(seed))):
            if other.key not in seen:
                seen.add(other.key)
                yield Variant(kind="shuffle", problem=other)

    def traits(self, problem: Problem) -> frozenset[str]:
        digits = problem.question.removeprefix("sort:")
        found = {"distinct" if len(set(digits)) == len(digits) else "repeat"}
        found |= {"sorted"} if digits == problem.gold else set()
        found |= {"descending"} if digits == problem.gold[::-1] and digits != problem.gold else set()
        return frozenset(found | ({"zero"} if "0" in digits else set()))


def _shuffles(digits: str, random: Random) -> list[str]:
    return ["".join(random.sample(digits, len(digits))) for _ in range(_SHUFFLES)]


def _problem(digits: str) -> Problem:
    gold = "".join(sorted(digits))
    return Problem(
        family=SortDigits.name,
        level=len(digits) - 2,
        key=f"{SortDigits.name}:{digits}",
        question=f"sort:{digits}",
        gold=gold,
        solution=gold,
    )


def _error(gold: str, text: str) -> str:
    if len(text) < len(gold) and gold.startswith(text):
        return "truncated"
    if len(text) != len(gold):
        return "length"
    if sorted(text) != sorted(gold):
        return "lost_digit"
    return "descending" if text == gold[::-1] else "order"
