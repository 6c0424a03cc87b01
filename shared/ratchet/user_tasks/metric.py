"""Which metric suits a data set: accuracy where answers can be checked, loss where they are free text.

It looks at the answers alone, and says why, so that a person can choose differently. Which tests belong to a metric is
the gate's matter (``ratchet.stats``).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from statistics import median

from ratchet.data.example import Example
from ratchet.errors import DataError
from ratchet.evaluation.record import Metric
from ratchet.tasks.graders import gold, grade_example, suggest_grader

SAMPLE = 1_000
"""Rows that the suggestion looks at."""

CHECKABLE_SHARE = 0.9
"""Share of checkable answers from which the metric is accuracy: the rest would be graded wrong for ever."""

SHORT_WORDS, SHORT_CHARACTERS = 6, 60
"""A text answer of at most this length is checked by equality after normalization; a longer one never repeats."""


@dataclass(frozen=True)
class Suggestion:
    """A metric, and in one sentence why. ``graders`` counts the graders of the answers that can be checked."""

    metric: Metric
    why: str
    graders: Counter[str]


@dataclass(frozen=True)
class GradedSample:
    """One row as it will be graded: its question and gold, and whether its own and another answer count as right."""

    question: str
    gold: str
    grader: str
    wordy: str
    is_wordy_right: bool
    other: str | None
    is_other_right: bool


def suggest_metric(rows: Iterable[Example]) -> Suggestion:
    """The metric for these rows; the first ``SAMPLE`` of them decide. Raises DataError if there is none."""
    sample = list(islice(rows, SAMPLE))
    if not sample:
        raise DataError("there is no readable row to choose a metric by.")
    graders = Counter(name for row in sample if (name := checkable_by(row)) is not None)
    if graders.total() >= CHECKABLE_SHARE * len(sample):
        names = ", ".join(f"{name} {count / len(sample):.0%}" for name, count in graders.most_common())
        return Suggestion("accuracy", f"the answers can be checked ({names})", graders)
    words = median(len(gold(row).split()) for row in sample)
    rest = 1 - graders.total() / len(sample)
    return Suggestion("loss", f"{rest:.0%} of the answers are free text, of {words:.0f} words in the median", graders)


def checkable_by(row: Example) -> str | None:
    """The grader that can check the row's answer; None for free text."""
    try:
        expected = gold(row)
    except DataError:
        return None
    name = str(row.metadata.get("grader") or suggest_grader(expected))
    if name not in ("normalized", "exact") or (
        len(expected.split()) <= SHORT_WORDS and len(expected) <= SHORT_CHARACTERS
    ):
        return name
    return None


def graded_samples(rows: Sequence[Example], most: int = 2) -> list[GradedSample]:
    """Rows with different answers, each graded on a wordy right answer and on the other's answer."""
    chosen: list[Example] = []
    for row in rows:
        if row.answer and gold(row) not in {gold(other) for other in chosen}:
            chosen.append(row)
        if len(chosen) == max(most, 2):
            break
    return [_graded(row, chosen[place - 1] if len(chosen) > 1 else None) for place, row in enumerate(chosen[:most])]


def _graded(row: Example, other: Example | None) -> GradedSample:
    expected = gold(row)
    wordy, different = f"The answer is {expected}.", gold(other) if other is not None else None
    return GradedSample(
        question=row.question,
        gold=expected,
        grader=str(row.metadata.get("grader") or suggest_grader(expected)),
        wordy=wordy,
        is_wordy_right=grade_example(row, wordy).correct,
        other=different,
        is_other_right=different is not None and grade_example(row, different).correct,
    )
