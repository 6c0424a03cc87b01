"""What families have in common that ask for one row of characters in the place of another."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from random import Random

from ratchet.errors import DataError
from ratchet.tasks.family import Grade, Problem


class CharacterRow(ABC):
    """Rows over ``alphabet``, asked for as ``prefix:row``. Level n has n + 2 characters."""

    name: str
    prefix: str
    alphabet: str
    version = "1"
    levels: tuple[int, ...] = (1, 2, 3, 4, 5, 6)

    @abstractmethod
    def answer(self, row: str) -> str:
        """The row that is asked for."""

    @abstractmethod
    def mistake(self, gold: str, text: str) -> str:
        """The error class of a row over the alphabet that is not the gold."""

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
        """Every row that has one character of the alphabet in the place of one of its own, itself among them."""
        return [row[:place] + other + row[place + 1 :] for place in range(len(row)) for other in self.alphabet]

    def _is_row(self, text: str) -> bool:
        return re.fullmatch(f"[{self.alphabet}]+", text) is not None

    def _error(self, gold: str, text: str) -> str:
        if len(text) < len(gold) and gold.startswith(text):
            return "truncated"
        if len(text) != len(gold):
            return "length"
        return self.mistake(gold, text)
