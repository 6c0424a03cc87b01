"""The general prompts: which there are, and which of the base model's answers are held out and replayed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from ratchet.errors import SettingsError
from ratchet.evaluation.suite import POOLS
from ratchet.settings.judging import SuiteSettings
from ratchet.user_tasks.general import FEWEST, GeneralSpec, answer_prompts, general_rows, read_prompts

from tests.support.tiny_model import build_tiny_model


def test_the_prompts_follow_the_setting(tmp_path: Path) -> None:
    builtin = read_prompts(SuiteSettings().general_prompts)
    assert len(builtin) == len(set(builtin)) >= 100
    assert read_prompts(SuiteSettings(general_prompts="none").general_prompts) == ()
    file = tmp_path / "mine.jsonl"
    rows = [
        {"prompt": "Who are you?", "completion": "-"},
        *({"question": q, "answer": "-"} for q in ("And I?", "and i")),
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert read_prompts(SuiteSettings(general_prompts=file).general_prompts) == ("Who are you?", "And I?")


def test_an_unusable_file_of_prompts_names_its_line(tmp_path: Path) -> None:
    file = tmp_path / "mine.jsonl"
    file.write_text("{broken\n")
    with pytest.raises(SettingsError, match=r"suites\.general_prompts: mine\.jsonl:1: "):
        read_prompts(file)


def test_answers_that_ended_are_held_out_in_every_pool_or_replayed_and_no_other() -> None:
    prompts = read_prompts("builtin")
    answers = [f"answer to {prompt}" if number % 5 else None for number, prompt in enumerate(prompts)]
    held, replayed = general_rows(prompts, answers)
    rows = [*replayed, *(row for pool in POOLS for row in held[pool])]
    assert len(rows) == len({row.question for row in rows}) == sum(answer is not None for answer in answers)
    assert all(len(held[pool]) >= 8 for pool in POOLS)
    assert {(row.family, row.metadata["metric"]) for row in rows} == {("general", "loss")}


def test_a_model_that_ends_hardly_any_answer_is_held_to_none() -> None:
    prompts = read_prompts("builtin")
    held, replayed = general_rows(prompts, ["yes"] * (FEWEST - 1) + [None] * (len(prompts) - FEWEST + 1))
    assert replayed == []
    assert not any(held.values())


def test_the_base_model_answers_in_a_child_and_long_answers_are_left_out(tmp_path: Path) -> None:
    spec = GeneralSpec(
        folder=build_tiny_model(tmp_path / "tiny"),
        prompts=("1+1=", "2+2="),
        max_length=128,
        inference={},  # type: ignore[arg-type]
        profile="plain",
        profile_options={},
        system_prompt="",
        day="2026-11-30",
    )
    found = answer_prompts(spec.model_dump(mode="json"), lambda _message: None)
    assert found["answers"] == [None, None], "an untrained model does not end its answers"
