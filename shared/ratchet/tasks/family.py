"""The plug-in point for a kind of problem: everything that knows about it, in one object."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import ClassVar, Protocol, runtime_checkable

from pydantic import BaseModel, ConfigDict

from ratchet.data.example import Example


class Problem(BaseModel):
    """One problem of a family. ``key`` is equal for two problems exactly if they are the same problem.

    ``seed`` is set where the family cannot parse its own questions: level and seed then make the problem again.
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
    """What a grader found about one answer. ``extracted`` is None where no answer could be read."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    correct: bool
    extracted: str | None
    error: str | None = None
    """None where correct, else the family's error class (``format``, ``off_by_one``, ``carry``, ``wrong`` …)."""


class Variant(BaseModel):
    """A problem that asks the same as another one in a different way: whoever can solve one can solve the other.

    ``kind`` names the change (``swap``, ``shuffle``, ``rename``). The level is the same; the gold is the same, or what
    the change makes of it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: str
    problem: Problem


@runtime_checkable
class TaskFamily(Protocol):
    """A kind of problem, by level. Level 1 is the easiest. Every method is pure; randomness comes from the seed.

    ``errors`` are the classes of mistakes that ``grade`` finds, ``features`` the traits that ``traits`` finds in a
    problem, each with its meaning; ``variant_kinds`` are the kinds of ``variants``.
    """

    name: str
    version: str
    levels: tuple[int, ...]
    errors: ClassVar[Mapping[str, str]]
    features: ClassVar[Mapping[str, str]]
    variant_kinds: tuple[str, ...]

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

    def variants(self, problem: Problem, seed: int) -> Iterator[Variant]:
        """Other ways to ask the same problem, each once and none equal to it;

        nothing where the family has no such change.
        """
        ...

    def traits(self, problem: Problem) -> frozenset[str]:
        """Which of the features the problem has."""
        ...


def each_once(problems: Iterable[Problem], but: Problem) -> Iterator[Problem]:
    """The problems as they come, none twice, and none that is ``but``."""
    seen = {but.key}
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
