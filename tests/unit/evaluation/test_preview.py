from __future__ import annotations

from pathlib import Path
from typing import Any

from ratchet.data.example import Example
from ratchet.evaluation.preview import BLOCK_BYTES, Preview, append_previews, graded, read_previews
from ratchet.inference.generator import Generation
from ratchet.inference.prompt_format import PromptFormat
from ratchet.tasks import registry
from ratchet.tasks.family import to_example

from tests.support.previews import preview

KNOWN: dict[str, Any] = {"at": 0.0, "step": 100, "backend": "local", "line": 1, "seen": False}


def answered(text: str) -> Generation:
    return Generation(
        text=text,
        token_ids=(1, 2),
        token_logprobs=(),
        finish_reason="stop",
        prompt_tokens=3,
        latency_s=0.1,
        weights="in training",
    )


def test_the_familys_grader_judges_an_answer() -> None:
    problem = registry.get("chain_sum").generate(1, 7)
    example = to_example(problem, "test")
    right = graded(example, answered(problem.solution), PromptFormat(), **KNOWN)
    wrong = graded(example, answered("no idea"), PromptFormat(), **KNOWN)
    assert (right.correct, right.family, right.gold, right.tokens) == (True, "chain_sum", problem.gold, 2)
    assert (wrong.correct, wrong.answer) == (False, "no idea")


def test_the_profile_parses_the_answer_first() -> None:
    formatted = PromptFormat.named("regime3")
    example = Example.ask("What is 2 + 3?", "5", grader="numeric")
    assert graded(example, answered("<<ANS_START>> 5 <<ANS_END>>"), formatted, **KNOWN).correct


def test_an_ungradable_row_has_the_reason() -> None:
    example = Example.ask("what is this?", "nobody knows", family="chain_sum")
    assert "does not know the question" in str(graded(example, answered("x"), PromptFormat(), **KNOWN).error)


def one(step: int) -> Preview:
    example = Example.ask("Is 🤔 fine?", "yes")
    return graded(example, answered("yes"), PromptFormat(), **{**KNOWN, "step": step})


def test_the_journal_returns_the_newest_previews_and_skips_torn_lines(tmp_path: Path) -> None:
    journal = tmp_path / "status" / "previews.jsonl"
    assert read_previews(journal, 3) == []
    append_previews(journal, [one(step) for step in range(5)])
    with journal.open("a") as file:
        file.write('{"at": 1.0, "st\n')
    append_previews(journal, [one(5)])
    assert [preview.step for preview in read_previews(journal, 3)] == [3, 4, 5]


def test_the_journal_is_read_from_its_end_over_any_block(tmp_path: Path) -> None:
    journal = tmp_path / "previews.jsonl"
    lines = 2 * BLOCK_BYTES // len(one(1).model_dump_json())
    append_previews(journal, [one(step) for step in range(lines)])
    assert journal.stat().st_size > BLOCK_BYTES
    assert [preview.step for preview in read_previews(journal, lines + 1)] == list(range(lines))


def test_the_journal_stays_small(tmp_path: Path) -> None:
    journal = tmp_path / "previews.jsonl"
    for step in range(60):
        append_previews(journal, [one(step)], limit_bytes=2_000)
    assert journal.stat().st_size < 3_000
    assert read_previews(journal, 1)[0].step == 59


def test_a_line_truncated_by_a_full_disk_does_not_damage_the_next(tmp_path: Path) -> None:
    journal = tmp_path / "previews.jsonl"
    append_previews(journal, [preview(step=1), preview(step=2)])
    journal.write_bytes(journal.read_bytes()[:-20])
    append_previews(journal, [preview(step=3)])
    assert [found.step for found in read_previews(journal, 10)] == [1, 3]


def test_free_text_is_shown_and_not_graded(tmp_path: Path) -> None:
    row = Example.ask("Describe a cat.", "A small animal that purrs.", family="letters", metric="loss")
    found = graded(row, answered("A cat is a cat."), PromptFormat(), **KNOWN)
    assert found.correct is None
    assert found.error is None
    assert found.gold == "A small animal that purrs."
    append_previews(tmp_path / "previews.jsonl", [found])
    assert read_previews(tmp_path / "previews.jsonl", 5) == [found]
