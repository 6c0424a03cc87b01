from __future__ import annotations

from typing import Any

import pytest
from ratchet.evaluation.answer_faults import answer_faults, is_repeating
from ratchet.evaluation.record import ItemRecord


def item(**fields: Any) -> ItemRecord:
    plain = {
        "item_id": "1",
        "key": "1",
        "family": "sums",
        "level": 1,
        "answer": "1+1=2",
        "extracted": None,
        "extraction": "ok",
        "correct": False,
        "token_logprobs": (-0.1,),
        "finish_reason": "stop",
        "latency_s": 0.0,
    }
    return ItemRecord.model_validate(plain | fields)


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        (item(), set()),
        (item(answer=" \n"), {"empty"}),
        (item(finish_reason="length"), {"endless"}),
        (item(finish_reason="length", gold_tokens=1), set()),
        (item(answer="7" * 40, finish_reason="length"), {"endless", "repeating"}),
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
