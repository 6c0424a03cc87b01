"""The data side on rows as people have them: 450 of four shapes. Each test is a way in which such systems fail."""

from __future__ import annotations

from pathlib import Path

import pytest
from miner.batch_coverage import Row, measure
from miner.correction_examples import CorrectionCounts, correction_examples, judgement_examples
from miner.mined_items import GradedAnswer, MinedItem, categorise, mine
from miner.text_history import opened
from ratchet.data.example import Example
from ratchet.data.jsonl import read_examples
from ratchet.inference.prompt_format import PromptFormat
from ratchet.tasks.error_classes import classify
from ratchet.tasks.graders import gold, text_key

FILES = sorted((Path(__file__).parents[2] / "data").glob("*.jsonl"))


def rows(file: Path) -> list[Example]:
    return [row for _, row in read_examples(file) if isinstance(row, Example)]


ALL = [row for file in FILES for row in rows(file)]


def answered(row: Example, text: str, finished: bool = True) -> GradedAnswer:
    return GradedAnswer.of(row, text_key(row), text, (-0.1, -0.2), PromptFormat(), finished=finished)


def test_the_real_rows_exist() -> None:
    assert len(ALL) == 450


@pytest.mark.parametrize(
    "text", ["", "I cannot say.", "Error: CUDA out of memory", "Traceback (most recent call last):"]
)
def test_an_empty_reply_is_never_right(text: str) -> None:
    assert [row.question for row in ALL if answered(row, text).is_right] == []


def test_the_rows_own_answers_are_right_and_not_mined() -> None:
    answers = [answered(row, gold(row)) for row in ALL]
    assert all(answer.is_right for answer in answers)
    assert mine(answers, {}) == []


def test_an_error_message_of_a_server_is_a_class_of_its_own() -> None:
    assert {classify(row, "Error: CUDA out of memory") for row in ALL} == {"error_text"}


def test_a_long_answer_that_was_cut_off_is_truncated_and_not_wrong() -> None:
    puzzles = rows(next(file for file in FILES if file.name.startswith("syllo")))
    cut = [answered(row, gold(row)[: len(gold(row)) // 2], finished=False) for row in puzzles]
    assert {answer.error for answer in cut} == {"truncated"}


def test_error_classes_repeat() -> None:
    """Free words for errors never came up twice; classes do, so that they can be counted and followed."""
    sums = rows(next(file for file in FILES if file.name.startswith("gsm8k")))
    classes = [classify(row, "17") for row in sums]
    assert len({name for name in classes if name}) <= 4


def test_the_question_that_is_asked_does_not_hold_the_answer() -> None:
    for row in ALL:
        assert row.prompt
        assert all(message.role != "assistant" for message in row.prompt)


def test_text_without_a_family_gives_no_correction_example() -> None:
    found = [
        MinedItem(
            example=row, key=text_key(row), category="wrong", answer="no", weakness=1.0, error="wrong", found_by="fresh"
        )
        for row in ALL
    ]
    told = CorrectionCounts()
    assert list(correction_examples(found, frozenset(), 8, 1_000, told)) == []
    assert list(judgement_examples(found, frozenset(), 1_000, str.strip, told)) == []
    assert told.left_out["no known family"] == len(ALL)


def test_an_answer_is_unsure_by_its_tokens_and_not_by_its_first() -> None:
    row = ALL[0]
    shaky = GradedAnswer.of(row, text_key(row), gold(row), (-0.01, -2.0), PromptFormat(), finished=True)
    assert categorise(shaky) == "low_margin"


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_levels_are_read_from_any_field_and_repeats_are_found(file: Path, tmp_path: Path) -> None:
    batch = [*rows(file), *rows(file)[:10]]
    found = measure([Row(row, text_key(row)) for row in batch], {})
    assert {(cell.family, cell.level) for cell in found.cells} == {(row.family, row.level) for row in batch}
    assert found.duplicates >= 10
    assert 0.0 <= found.entropy <= 1.0
    said = [("\n".join(message.content for message in row.prompt), True) for row in batch]
    with opened(tmp_path / "history", 1_000) as history:
        first, again = (history.add(name, said, 0.8) for name in ("one", "two"))
    assert first.repeats >= 10
    assert (first.known, again.known) == (0, len(batch))
    assert (first.new_runs, again.new_runs) == (first.runs, 0)


def test_novelty_does_not_fall_with_size_alone() -> None:
    """Types by tokens fall with any text's length; the share of runs that are new does not."""
    from miner.text_history import sketch

    sums = [row.question for row in rows(next(file for file in FILES if file.name.startswith("gsm8k")))]
    half, whole = (len(sketch(part, [False] * len(part)).runs) / len(part) for part in (sums[:100], sums))
    assert whole > 0.9 * half
