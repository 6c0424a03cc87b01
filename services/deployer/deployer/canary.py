"""What is served is what was judged: a loaded checkpoint against the records of its evaluation.

Three things are compared on a set of canary items: the server's teacher-forced log-probabilities of the judged
answers, the grades of the server's own answers, and, where engine, dtype and GPU class are the same, their exact text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ratchet.evaluation.record import ItemRecord

EPSILON = {"fp32": 1e-3, "fp16": 0.05, "bf16": 0.15}
"""Largest accepted difference of one token's log-probability, by dtype: about ten times the rounding seen between
batch shapes."""

LEAST_COMPARABLE = 0.5
"""Share of items whose tokens must line up. An answer that a tokenizer splits otherwise than the model wrote it, or
that a stop string cut, cannot be scored token by token."""


@dataclass(frozen=True)
class CanaryItem:
    """One item as judged and as served. ``scored`` are log-probabilities of the judged answer and its end token."""

    judged: ItemRecord
    scored: tuple[float, ...]
    answer: str
    correct: bool


@dataclass(frozen=True)
class CanaryNumbers:
    """``compared`` of ``items`` had tokens that line up. ``lost`` and ``won`` are grades that changed."""

    items: int
    compared: int
    largest_difference: float
    epsilon: float
    lost: int
    won: int
    texts_equal: int
    text_required: bool


@dataclass(frozen=True)
class CanaryPassed:
    numbers: CanaryNumbers


@dataclass(frozen=True)
class CanaryFailed:
    numbers: CanaryNumbers
    reason: str


CanaryVerdict = CanaryPassed | CanaryFailed


def judge_canary(
    items: Sequence[CanaryItem], *, dtype: str, same_engine: bool, epsilon: float | None = None
) -> CanaryVerdict:
    """``same_engine`` says that engine, dtype and GPU class of server and evaluation are equal.

    Grades are not worse where no more items are lost than won. With no item at all the canary fails.
    """
    numbers = _measure(items, EPSILON[dtype] if epsilon is None else epsilon, same_engine)
    reason = _fault(numbers)
    return CanaryPassed(numbers) if reason is None else CanaryFailed(numbers, reason)


def _fault(numbers: CanaryNumbers) -> str | None:
    n = numbers
    if n.compared < max(1, LEAST_COMPARABLE * n.items):
        return f"only {n.compared} of {n.items} canary items can be compared token by token"
    if not n.largest_difference <= n.epsilon:
        return f"a log-probability differs by {n.largest_difference:.4g}, more than {n.epsilon:g}"
    if n.lost > n.won:
        return f"grades are worse: {n.lost} of {n.items} items lost, {n.won} won"
    if n.text_required and n.texts_equal < n.items:
        return f"{n.items - n.texts_equal} of {n.items} answers differ in their text"
    return None


def _measure(items: Sequence[CanaryItem], epsilon: float, same_engine: bool) -> CanaryNumbers:
    differences = [difference for item in items if (difference := _difference(item)) is not None]
    return CanaryNumbers(
        items=len(items),
        compared=len(differences),
        largest_difference=max(differences, default=float("nan")),
        epsilon=epsilon,
        lost=sum(item.judged.correct and not item.correct for item in items),
        won=sum(item.correct and not item.judged.correct for item in items),
        texts_equal=sum(item.answer == item.judged.answer for item in items),
        text_required=same_engine,
    )


def _difference(item: CanaryItem) -> float | None:
    """The largest difference of a token; None where the tokens do not line up.

    An answer that ran into its length limit has no end token of its own; the scored one is left out.
    """
    judged = item.judged.token_logprobs
    scored = item.scored[:-1] if item.judged.finish_reason == "length" else item.scored
    if len(judged) != len(scored) or not judged:
        return None
    return max(abs(a - b) for a, b in zip(judged, scored, strict=True))
