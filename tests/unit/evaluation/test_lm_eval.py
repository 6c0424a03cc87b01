"""The per-sample file of lm-evaluation-harness, in the shapes that its versions write."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ratchet.errors import DataError, EmptyEvaluation
from ratchet.evaluation.lm_eval import ENGINE, Reading, as_record, as_suite, read_samples
from ratchet.tasks.graders import grade_example

GSM8K = Reading("gsm8k", gold_after="####")


def sample(number: int, **changes: Any) -> dict[str, Any]:
    """A line as version 0.4.13 writes it for a generating task."""
    return {
        "doc_id": number,
        "doc": {"question": f"What is {number} + {number}?", "answer": f"Twice {number}. #### {2 * number}"},
        "target": f"Twice {number}. #### {2 * number}",
        "arguments": {
            "gen_args_0": {"arg_0": f"Question: What is {number} + {number}?\nAnswer:", "arg_1": {"until": ["\n"]}}
        },
        "resps": [[f"It is {2 * number}."]],
        "filtered_resps": [str(2 * number) if number % 2 else "[invalid]"],
        "filter": "strict-match",
        "metrics": ["exact_match"],
        "doc_hash": "d",
        "prompt_hash": "p",
        "target_hash": "t",
        "exact_match": float(number % 2),
        **changes,
    }


def written(folder: Path, *rows: object) -> Path:
    file = folder / "samples_gsm8k_2026-11-24T10-00-00.000000.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def test_items_are_a_suite_that_our_graders_can_grade(tmp_path: Path) -> None:
    samples = read_samples(written(tmp_path, *map(sample, range(4))), GSM8K)
    suite = as_suite(samples, 0)
    assert (suite.pool, len(suite.items)) == ("imported", 4)
    item = suite.items[3]
    assert item.question == "Question: What is 3 + 3?\nAnswer:"
    assert grade_example(item, "It is 6.").correct
    assert not grade_example(item, "It is 7.").correct
    assert as_suite(samples, 0).id == suite.id


def test_a_number_that_is_no_json_is_read_and_half_a_character_is_refused(tmp_path: Path) -> None:
    """lm-evaluation-harness writes NaN for a metric that it did not compute."""
    file = written(tmp_path, sample(1, bypass=float("nan")), sample(2, resps=[["\ud83d"]]))
    with pytest.raises(DataError, match=r"jsonl:2: contains half a surrogate pair"):
        read_samples(file, GSM8K)
    assert len(read_samples(written(tmp_path, sample(1, bypass=float("nan"))), GSM8K)) == 1


def test_answers_are_a_record_with_the_harness_grades(tmp_path: Path) -> None:
    samples = read_samples(written(tmp_path, *map(sample, range(4))), GSM8K)
    suite = as_suite(samples, 0)
    record = as_record(samples, suite, "c0001-aaaaaa", "w" * 64)
    assert [item.correct for item in record.items] == [False, True, False, True]
    assert record.items[1].answer == "It is 2."
    assert record.items[1].extracted == "2"
    assert (record.key.engine, record.key.grader) == (ENGINE, f"{ENGINE}:exact_match/strict-match")
    assert record.key.suite == suite.id


def test_one_filter_of_several_is_read(tmp_path: Path) -> None:
    flexible = [sample(n, filter="flexible-extract", exact_match=1.0) for n in range(3)]
    file = written(tmp_path, *map(sample, range(3)), *flexible)
    assert [s.correct for s in read_samples(file, GSM8K)] == [False, True, False]
    assert all(s.correct for s in read_samples(file, Reading("gsm8k", "flexible-extract")))
    with pytest.raises(EmptyEvaluation, match="no sample of filter 'other'"):
        read_samples(file, Reading("gsm8k", "other"))


def test_lists_of_old_and_turns_of_chat_engines_are_read(tmp_path: Path) -> None:
    old = sample(1, arguments=[["What is 1 + 1?", {"until": ["\n"]}]])
    turns = json.dumps([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "What is 2 + 2?"}])
    chat = sample(2, arguments={"gen_args_0": {"arg_0": turns, "arg_1": {}}})
    first, second = (s.item for s in read_samples(written(tmp_path, old, chat), GSM8K))
    assert first.question == "What is 1 + 1?"
    assert [turn.role for turn in second.messages] == ["system", "user"]


CHOICES = {f"gen_args_{n}": {"arg_0": "The sky is", "arg_1": f" {colour}"} for n, colour in enumerate(("blue", "red"))}


@pytest.mark.parametrize(
    "row",
    [
        sample(1, arguments=CHOICES, resps=[[[-1.0, True]], [[-2.0, False]]]),
        sample(1, arguments={"gen_args_0": {"arg_0": "The sky is", "arg_1": " blue"}}),
        sample(1, metrics=[]),
        sample(1, metrics=["bleu"]),
        sample(1, resps=[]),
        {"doc_id": 1},
        [1, 2],
    ],
)
def test_what_is_no_generated_answer_is_refused_with_its_line(tmp_path: Path, row: object) -> None:
    with pytest.raises(DataError, match=r"\.jsonl:2: "):
        read_samples(written(tmp_path, sample(0), row), GSM8K)


def test_an_empty_file_is_no_suite(tmp_path: Path) -> None:
    with pytest.raises(EmptyEvaluation):
        read_samples(written(tmp_path), GSM8K)
