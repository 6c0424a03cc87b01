"""What testing's child is asked for, and what it made of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ratchet.data.example import Example
from ratchet.evaluation.answer_suites import SuiteResult, TestingResult, run_suites
from ratchet.evaluation.record import records_from_lines
from ratchet.tasks import registry
from ratchet.tasks.family import to_example

BATCH = 16


Spec = Callable[..., dict[str, Any]]


def sums(count: int, level: int) -> list[Example]:
    family = registry.get("chain_sum")
    examples = {(e := to_example(family.generate(level, seed), "test")).id: e for seed in range(3 * count)}
    return list(examples.values())[:count]


def run(spec: dict[str, Any], progress: Callable[[dict[str, Any]], None] = lambda _: None) -> TestingResult:
    return TestingResult.model_validate(run_suites(spec, progress))


def records(suite: SuiteResult) -> list[dict[str, Any]]:
    """Everything but the latency."""
    items = records_from_lines(suite.items.read_text().split("\n"))
    return [item.model_dump(exclude={"latency_s"}) for item in items]
