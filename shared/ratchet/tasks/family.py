"""The interface of a task family: one object with everything about a kind of problem, from generation to grading."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import ClassVar, Protocol, runtime_checkable

from pydantic import BaseModel, ConfigDict

from ratchet.data.example import Example


class Problem(BaseModel):
    """One problem of a family. Two problems have the same ``key`` exactly if they are the same problem.

    ``seed`` is set if the family cannot parse its own questions; level and seed then generate the problem again.
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
    """A grader's result for one answer. ``extracted`` is None if no answer could be read."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    correct: bool
    extracted: str | None
    error: str | None = None
    """None if correct, else the family's error class (``format``, ``off_by_one``, ``carry``, ``wrong`` …)."""


class Variant(BaseModel):
    """A problem that asks the same as another one in a different way: a model that can solve one can solve the other.

    ``kind`` is the change (``swap``, ``shuffle``, ``rename``). The level is the same; the gold answer is the same, or
    changed accordingly.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: str
    problem: Problem


@runtime_checkable
class TaskFamily(Protocol):
    """A kind of problem with levels, of which 1 is the easiest. Every method is pure; randomness comes from the seed.

    ``errors`` are the error classes of ``grade``, ``features`` the possible results of ``traits``, each with its
    meaning; ``variant_kinds`` are the kinds of ``variants``.
    """

    name: str
    version: str
    levels: tuple[int, ...]
    errors: ClassVar[Mapping[str, str]]
    features: ClassVar[Mapping[str, str]]
    variant_kinds: tuple[str, ...]

    def generate(self, level: int, seed: int) -> Problem:
        """The problem of this level and seed, the same on every call and every machine."""
        ...

    def capacity(self, level: int) -> int | None:
        """The number of different problems of the level; None if it is practically unlimited."""
        ...

    def parse(self, question: str) -> Problem | None:
        """The problem of a question; None if it is not one of this family."""
        ...

    def grade(self, problem: Problem, answer: str) -> Grade:
        """Grade a model's answer text against the problem's gold."""
        ...

    def perturb(self, problem: Problem, seed: int) -> Iterator[Problem]:
        """Similar problems of the same level, with correct gold answers; those with the same answer come first."""
        ...

    def variants(self, problem: Problem, seed: int) -> Iterator[Variant]:
        """Other ways to ask the same problem, each once and none equal to it;

        empty if the family has no variants.
        """
        ...

    def traits(self, problem: Problem) -> frozenset[str]:
        """The features that the problem has."""
        ...


def each_once(problems: Iterable[Problem], excluded: Problem) -> Iterator[Problem]:
    """The problems in order, without duplicates and without ``excluded``."""
    seen = {excluded.key}
    for problem in problems:
        if problem.key not in seen:
            seen.add(problem.key)
            yield problem


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
