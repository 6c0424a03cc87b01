from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from miner.correction import Corrections, corrections, error_class
from miner.mining import MinedItem
from ratchet.data.example import Example
from ratchet.data.jsonl import read_examples
from ratchet.evaluation.holdout import HoldOut
from ratchet.tasks.graders import grade_example, item_key

GSM = Path(__file__).parents[2] / "data" / "gsm8k_200.jsonl"


def mined(question: str, answer: str, level: int = 2) -> MinedItem:
    example = Example.ask(question, "?", family="chain_sum", level=level)
    return MinedItem(example=example, key=item_key(example), category="wrong", answer=answer, weakness=1.0)


WEAK = [mined("8+7+9=", "8+7=14;14+9=23"), mined("4+4+1=", "4+4=8;8+1=9")]


def made(held_out: HoldOut | frozenset[str], relatives: int = 4, budget: int = 99) -> tuple[list[Example], Corrections]:
    told = Corrections()
    return list(corrections(WEAK, held_out, relatives, budget, told)), told


def test_lessons_are_true_and_new_and_tell_why_they_are_there() -> None:
    lessons, told = made(frozenset())
    keys = [item_key(lesson) for lesson in lessons]
    assert len(set(keys)) == len(lessons) == 8
    assert not set(keys) & {weak.key for weak in WEAK}
    assert all(grade_example(lesson, lesson.answer or "").correct for lesson in lessons)
    assert {lesson.metadata["source"] for lesson in lessons} == {"correction"}
    assert Counter(lesson.metadata["parent"] for lesson in lessons) == {weak.key: 4 for weak in WEAK}
    assert told.by_error == {"off_by_one": 4, "wrong": 4}


def test_nothing_held_out_is_taught() -> None:
    held = HoldOut(seed=1, share=0.5)
    lessons, told = made(held, relatives=10)
    assert lessons
    assert not any(item_key(lesson) in held for lesson in lessons)
    assert told.left_out["held out"] > 0


@pytest.mark.parametrize(("relatives", "budget", "expected"), [(3, 99, [3, 3]), (9, 5, [3, 2]), (9, 0, [])])
def test_budget_is_spread_over_the_items(relatives: int, budget: int, expected: list[int]) -> None:
    lessons, _ = made(frozenset(), relatives, budget)
    assert list(Counter(lesson.metadata["parent"] for lesson in lessons).values()) == expected


def test_an_answer_that_was_right_by_luck_keeps_its_category() -> None:
    assert error_class(mined("4+4+1=", "4+4=8;8+1=9").model_copy(update={"category": "low_margin"})) == "low_margin"
    assert error_class(mined("4+4+1=", "4+4=8;8+1=19")) == "carry"


def test_an_item_of_no_family_is_passed_over() -> None:
    _, example = next(iter(read_examples(GSM)))
    assert isinstance(example, Example)
    stranger = MinedItem(example=example, key=item_key(example), category="wrong", answer="1", weakness=1.0)
    told = Corrections()
    assert list(corrections([stranger], frozenset(), 4, 9, told)) == []
    assert told.left_out == {"no known family": 1}
