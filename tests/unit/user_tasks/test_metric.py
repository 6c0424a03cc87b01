"""The metric that is suggested for rows which nobody here made, and for shapes of answers."""

from __future__ import annotations

from pathlib import Path

import pytest
from ratchet.data.example import Example
from ratchet.data.jsonl import read_examples
from ratchet.errors import DataError
from ratchet.user_tasks.metric import graded_samples, suggest_metric

DATA = Path(__file__).parents[2] / "data"

LETTER = "Dear guest, thank you for your stay. We are sorry about the noise, and have moved the bar to another floor."


def rows_of(name: str) -> list[Example]:
    return [row for _, row in read_examples(DATA / name) if isinstance(row, Example)]


@pytest.mark.parametrize("name", ["babi_qa1_100.jsonl", "gsm8k_200.jsonl", "binary_100.jsonl"])
def test_published_rows_with_short_answers_are_checked(name: str) -> None:
    assert suggest_metric(rows_of(name)).metric == "accuracy"


def test_letters_are_measured_by_their_loss() -> None:
    found = suggest_metric([Example.ask(f"Complaint {n}", f"{LETTER} ({n})") for n in range(20)])
    assert found.metric == "loss"
    assert "free text" in found.why


def test_a_few_long_answers_among_short_ones_stay_checked_and_many_do_not() -> None:
    short = [Example.ask(f"Where is {n}?", "in the hall") for n in range(95)]
    long = [Example.ask(f"Tell me about {n}", f"{LETTER} {n}") for n in range(40)]
    assert suggest_metric([*short, *long[:5]]).metric == "accuracy"
    assert suggest_metric([*short[:60], *long]).metric == "loss"


def test_rows_without_a_readable_one_have_no_metric() -> None:
    with pytest.raises(DataError, match="no readable row"):
        suggest_metric([])


def test_two_rows_show_how_answers_are_graded() -> None:
    first, second = graded_samples(rows_of("gsm8k_200.jsonl"))
    assert first.gold != second.gold
    assert first.is_wordy_right
    assert not first.is_other_right
