from __future__ import annotations

from typing import Any

import pytest
from evaluator.degenerate import OutputCensus, faults, is_repeating
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
        (item(answer="7" * 40, finish_reason="length"), {"endless", "repeating"}),
    ],
)
def test_faults_of_an_answer(record: ItemRecord, expected: set[str]) -> None:
    assert faults(record) == expected


@pytest.mark.parametrize("text", ["=" * 12, "so the the the the the the the the the the", "x" + "ab;" * 20])
def test_one_thing_over_and_over_is_repeating(text: str) -> None:
    assert is_repeating(text)


@pytest.mark.parametrize("text", ["", "1", "8+0=8;8+7=15", "0+0=0;0+0=0;0+0=0", "the end of the answer is 7"])
def test_a_worked_answer_is_not(text: str) -> None:
    assert not is_repeating(text)


def test_nearly_all_items_must_share_the_fault() -> None:
    census = OutputCensus()
    assert census.verdict() is None
    census.add([item(answer="")] * 97 + [item()] * 3)
    assert census.verdict() is None
    census.add([item(answer="")] * 100)
    assert census.verdict() == "empty answers on 197 of 200 items"
