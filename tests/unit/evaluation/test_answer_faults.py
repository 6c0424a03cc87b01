from __future__ import annotations

import pytest
from ratchet.evaluation.answer_faults import answer_faults, is_repeating
from ratchet.evaluation.record import ItemRecord

from tests.support.records import item_record


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        (item_record(), set()),
        (item_record(answer=" \n"), {"empty"}),
        (item_record(finish_reason="length"), {"endless"}),
        (item_record(finish_reason="length", gold_tokens=1), set()),
        (item_record(answer="7" * 40, finish_reason="length"), {"endless", "repeating"}),
    ],
)
def test_empty_endless_and_repeated_answers_are_faults(record: ItemRecord, expected: set[str]) -> None:
    assert answer_faults(record) == expected


@pytest.mark.parametrize("text", ["=" * 12, "so the the the the the the the the the the", "x" + "ab;" * 20])
def test_a_repeated_phrase_is_a_repetition(text: str) -> None:
    assert is_repeating(text)


@pytest.mark.parametrize("text", ["", "1", "8+0=8;8+7=15", "0+0=0;0+0=0;0+0=0", "the end of the answer is 7"])
def test_a_worked_answer_is_no_repetition(text: str) -> None:
    assert not is_repeating(text)
