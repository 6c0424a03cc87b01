"""The plug-in point for a kind of problem: everything that knows about it, in one object."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol, runtime_checkable

from pydantic import BaseModel, ConfigDict

from ratchet.data.example import Example


class Problem(BaseModel):
    """One problem of a family. ``key`` is equal for two problems exactly if they are the same problem.

    ``seed`` stands where the family cannot parse its own questions: level and seed then make the problem again.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    family: str
    level: int
    key: str
    question: str
    gold: str
    solution: str
    seed: int | None = None


class Grade(BaseModel):
    """A grader's word about one answer. ``extracted`` is None where no answer could be read."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    correct: bool
    extracted: str | None
    error: str | None = None
    """None where correct, else the family's error class (``format``, ``off_by_one``, ``carry``, ``wrong`` …)."""


@runtime_checkable
class TaskFamily(Protocol):
    """A kind of problem, by level. Level 1 is the easiest. Every method is pure; randomness comes from the seed."""

    name: str
    version: str
    levels: tuple[int, ...]

    def generate(self, level: int, seed: int) -> Problem:
        """The problem of this level and seed: the same twice, on every machine."""
        ...

    def capacity(self, level: int) -> int | None:
        """How many different problems the level has; None where they are practically endless."""
        ...

    def parse(self, question: str) -> Problem | None:
        """The problem that a rendered question states; None where it is not one of this family."""
        ...

    def grade(self, problem: Problem, answer: str) -> Grade:
        """Grade a model's answer text against the problem's gold."""
        ...

    def perturb(self, problem: Problem, seed: int) -> Iterator[Problem]:
        """Near relatives of the same level (meaning-preserving where the family has such), the gold correct."""
        ...


def to_example(problem: Problem, source: str) -> Example:
    """The problem with its worked solution, as a training example."""
    seed = {} if problem.seed is None else {"seed": problem.seed}
    return Example.ask(
        problem.question,
        problem.solution,
        family=problem.family,
        level=problem.level,
        key=problem.key,
        gold=problem.gold,
        source=source,
        **seed,
    )
