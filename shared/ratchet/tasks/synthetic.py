"""The built-in task families: sums with a running total, reversing letters, and sorting digits.

A program generates, solves and grades each problem, so that a whole run needs no data.
"""

from __future__ import annotations

import itertools
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from random import Random
from string import ascii_lowercase
from string import digits as all_digits
from typing import ClassVar

from ratchet.errors import DataError
from ratchet.tasks.family import Grade, Problem, Variant, each_once

_SUM = re.compile(r"((?:[0-9]|[1-4][0-9])(?:\+[0-9])+)=")
_STEP = re.compile(r"([0-9]{1,6})\+([0-9])=([0-9]{1,6})")
_NUMBER = re.compile(r"0|[1-9][0-9]{0,6}")
_FIRST_TERMS = 50
_DIGITS = 10
_RENAMINGS = 8
_SHUFFLES = 8


class ChainSum:
    """Sums of a number below 50 and single digits, solved with running totals.

    Level n has n + 1 terms: ``47+8+0=`` (level 2) is solved as ``47+8=55;55+0=55``. Only what follows the last ``=`` is
    graded; the steps before it determine the error class. The first term goes up to 49 so that level 1 has 500 items:
    with only 100, a small model memorises the 80 in training and solves just 60 % of the held-out ones.
    """

    name = "chain_sum"
    version = "1"
    levels = (1, 2, 3, 4, 5, 6)
    errors: ClassVar = {
        "format": "no number after the last equals sign",
        "truncated": "the sum stops before its last term",
        "operand": "a step adds numbers other than the running total and the next term",
        "operator": "a step subtracts or multiplies",
        "off_by_one": "the first wrong step is off by one",
        "carry": "the first wrong step is off by ten",
        "wrong": "the first wrong step is off by something else",
    }
    features: ClassVar = {
        "carry": "a step carries into the tens",
        "no_carry": "no step carries",
        "zero": "a term is 0",
        "double": "two adjacent terms are equal",
        "from_20": "a running total reaches 20",
    }
    variant_kinds = ("swap",)

    def generate(self, level: int, seed: int) -> Problem:
        if level not in self.levels:
            raise DataError(f"{self.name} has levels 1 to {self.levels[-1]}, not {level}.")
        random = Random(seed * 16 + level)
        return _sum_problem([random.randrange(_FIRST_TERMS), *(random.randrange(_DIGITS) for _ in range(level))])

    def capacity(self, level: int) -> int | None:
        return _FIRST_TERMS * _DIGITS**level

    def parse(self, question: str) -> Problem | None:
        match = _SUM.fullmatch(question.strip())
        terms = [int(term) for term in match[1].split("+")] if match else []
        return _sum_problem(terms) if len(terms) - 1 in self.levels else None

    def grade(self, problem: Problem, answer: str) -> Grade:
        result = answer.rpartition("=")[2].strip()
        if result == problem.gold:
            return Grade(correct=True, extracted=result)
        if _NUMBER.fullmatch(result):
            return Grade(correct=False, extracted=result, error=_sum_error(problem, answer))
        return Grade(correct=False, extracted=None, error="format" if result else _missing(answer))

    def perturb(self, problem: Problem, seed: int) -> Iterator[Problem]:
        """Sums with two terms swapped (same gold), then sums with one term changed, without duplicates."""
        terms = _terms(problem)
        swapped, changed = _term_swaps(terms), _term_changes(terms)
        random = Random(seed)
        random.shuffle(swapped)
        random.shuffle(changed)
        return each_once(map(_sum_problem, swapped + changed), problem)

    def variants(self, problem: Problem, seed: int) -> Iterator[Variant]:
        """The terms in other orders, which do not change the sum."""
        swaps = _term_swaps(_terms(problem))
        Random(seed).shuffle(swaps)
        for other in each_once(map(_sum_problem, swaps), problem):
            yield Variant(kind="swap", problem=other)

    def traits(self, problem: Problem) -> frozenset[str]:
        terms = _terms(problem)
        totals = [sum(terms[:place]) for place in range(1, len(terms) + 1)]
        carries = any(total % _DIGITS + term >= _DIGITS for total, term in zip(totals, terms[1:], strict=False))
        found = {"carry" if carries else "no_carry"}
        found |= {"zero"} if 0 in terms else set()
        found |= {"double"} if any(a == b for a, b in itertools.pairwise(terms)) else set()
        return frozenset(found | ({"from_20"} if totals[-1] >= 20 else set()))


def _sum_problem(terms: Sequence[int]) -> Problem:
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


def _term_swaps(terms: list[int]) -> list[list[int]]:
    """Every swap of two different terms after which at most the first term has two digits."""
    pairs = ((i, j) for i in range(len(terms)) for j in range(i + 1, len(terms)))
    swaps = []
    for i, j in pairs:
        other = list(terms)
        other[i], other[j] = other[j], other[i]
        if other != terms and max(other[1:]) < _DIGITS:
            swaps.append(other)
    return swaps


def _term_changes(terms: list[int]) -> list[list[int]]:
    """Every sum that differs by 1 to 3 in one term."""
    changes = []
    for place, term in enumerate(terms):
        limit = _FIRST_TERMS if place == 0 else _DIGITS
        near = (term + delta for delta in (-3, -2, -1, 1, 2, 3))
        changes += [[*terms[:place], value, *terms[place + 1 :]] for value in near if 0 <= value < limit]
    return changes


def _missing(answer: str) -> str:
    return "truncated" if answer.strip() else "format"


def _sum_error(problem: Problem, answer: str) -> str:
    """The class of the first mistake in the steps; without steps, that of the difference between result and gold."""
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


class CharacterRow(ABC):
    """Tasks on a row of characters of ``alphabet``, asked as ``prefix:row``. Level n has n + 2 characters."""

    name: str
    prefix: str
    alphabet: str
    version = "1"
    levels: tuple[int, ...] = (1, 2, 3, 4, 5, 6)

    @abstractmethod
    def answer(self, row: str) -> str:
        """The gold answer for a row."""

    @abstractmethod
    def mistake(self, gold: str, text: str) -> str:
        """The error class of an answer of the gold's length that is wrong."""

    def generate(self, level: int, seed: int) -> Problem:
        if level not in self.levels:
            raise DataError(f"{self.name} has levels 1 to {self.levels[-1]}, not {level}.")
        random = Random(seed * 16 + level)
        return self.problem("".join(random.choice(self.alphabet) for _ in range(level + 2)))

    def capacity(self, level: int) -> int | None:
        return int(len(self.alphabet) ** (level + 2))

    def parse(self, question: str) -> Problem | None:
        prefix, _, row = question.strip().partition(":")
        is_ours = prefix == self.prefix and self._is_row(row) and len(row) - 2 in self.levels
        return self.problem(row) if is_ours else None

    def grade(self, problem: Problem, answer: str) -> Grade:
        text = answer.strip()
        if text == problem.gold:
            return Grade(correct=True, extracted=text)
        if not self._is_row(text):
            return Grade(correct=False, extracted=None, error="format")
        return Grade(correct=False, extracted=text, error=self._error(problem.gold, text))

    def problem(self, row: str) -> Problem:
        gold = self.answer(row)
        return Problem(
            family=self.name,
            level=len(row) - 2,
            key=f"{self.name}:{row}",
            question=f"{self.prefix}:{row}",
            gold=gold,
            solution=gold,
        )

    def row(self, problem: Problem) -> str:
        return problem.question.removeprefix(f"{self.prefix}:")

    def changes(self, row: str) -> list[str]:
        """Every row with one character replaced by one of the alphabet, including the row itself."""
        return [row[:place] + other + row[place + 1 :] for place in range(len(row)) for other in self.alphabet]

    def _is_row(self, text: str) -> bool:
        return re.fullmatch(f"[{self.alphabet}]+", text) is not None

    def _error(self, gold: str, text: str) -> str:
        if len(text) < len(gold) and gold.startswith(text):
            return "truncated"
        if len(text) != len(gold):
            return "length"
        return self.mistake(gold, text)


class Reverse(CharacterRow):
    """A row of letters reversed: ``reverse:abcd`` is answered ``dcba``. Level n has n + 2 letters."""

    name = "reverse"
    prefix = "reverse"
    alphabet = ascii_lowercase
    errors: ClassVar = {
        "format": "something other than lowercase letters",
        "truncated": "the answer stops early",
        "length": "too many or too few letters",
        "copied": "the row itself, not reversed",
        "order": "the right letters in a wrong order",
        "wrong": "other letters",
    }
    features: ClassVar = {
        "repeat": "a letter occurs twice",
        "distinct": "all letters differ",
        "neighbours": "two adjacent letters are equal",
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
        """Rows with two letters swapped, then rows with one letter changed, without duplicates."""
        letters, random = self.row(problem), Random(seed)
        swapped = [_exchanged(letters, i, j) for i, j in itertools.combinations(range(len(letters)), 2)]
        changed = self.changes(letters)
        random.shuffle(swapped)
        random.shuffle(changed)
        return each_once(map(self.problem, swapped + changed), problem)

    def variants(self, problem: Problem, seed: int) -> Iterator[Variant]:
        """The row with its letters consistently renamed, which does not affect reversing."""
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


def _exchanged(letters: str, i: int, j: int) -> str:
    return letters[:i] + letters[j] + letters[i + 1 : j] + letters[i] + letters[j + 1 :]


class SortDigits(CharacterRow):
    """A row of digits sorted: ``sort:72502`` is answered ``02257``. Level n has n + 2 digits."""

    name = "sort_digits"
    prefix = "sort"
    alphabet = all_digits
    errors: ClassVar = {
        "format": "something other than digits",
        "truncated": "the answer stops early",
        "length": "too many or too few digits",
        "lost_digit": "other digits than in the row",
        "descending": "sorted in descending order",
        "order": "the right digits in a wrong order",
    }
    features: ClassVar = {
        "repeat": "a digit occurs twice",
        "distinct": "all digits differ",
        "sorted": "the row is already sorted",
        "descending": "the row is in descending order",
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
        """The same digits in other orders (same gold), then rows with one digit changed, without duplicates."""
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
