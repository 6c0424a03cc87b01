"""Small examples that a tiny model learns, and files of them."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable
from pathlib import Path

from ratchet.data.example import Example
from ratchet.tasks import registry
from ratchet.tasks.family import to_example


def sums(count: int, *, seed: int = 0, longest: int = 2) -> list[Example]:
    """Sums of one-digit numbers, of two to ``longest`` terms, answered with their running totals."""
    draw = random.Random(seed)
    return [_sum([draw.randint(0, 9) for _ in range(draw.randint(2, longest))]) for _ in range(count)]


def write_examples(path: Path, examples: Iterable[Example]) -> Path:
    """The examples as JSONL, one a line; returns the path."""
    path.write_text("".join(example.to_line() + "\n" for example in examples), encoding="utf-8")
    return path


def _sum(terms: list[int]) -> Example:
    totals = [sum(terms[: end + 1]) for end in range(len(terms))]
    steps = [f"{before}+{term}={after}" for before, term, after in zip(totals, terms[1:], totals[1:], strict=False)]
    return Example.ask("+".join(map(str, terms)) + "=", ";".join(steps), family="sums", gold=str(totals[-1]))


def made(family: str = "chain_sum", level: int = 1, count: int = 1, first: int = 0) -> list[Example]:
    """Different items of a level of a family, from this seed on."""
    found: dict[str, Example] = {}
    for seed in itertools.count(first):
        problem = registry.get(family).generate(level, seed)
        found.setdefault(problem.key, to_example(problem, "test"))
        if len(found) == count:
            break
    return list(found.values())
