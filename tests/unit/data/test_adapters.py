from __future__ import annotations

from typing import Any

import pytest
from ratchet.data.adapters import ADAPTERS, adapt, known_shapes
from ratchet.errors import DataError, UnknownShape

SHAPES: list[dict[str, Any]] = [
    {"messages": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}]},
    {"conversations": [{"from": "human", "value": "Q"}, {"from": "gpt", "value": "A"}]},
    {"conversations": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}]},
    {"user_prompt": "Q", "expected_answer": "A"},
    {"user_prompt": "Q", "assistant_response": "A"},
    {"prompt": "Q", "completion": "A"},
    {"prompt": "Q", "expected": "A"},
    {"instruction": "Q", "output": "A"},
    {"instruction": "Q", "input": "", "output": "A"},
    {"question": "Q", "answer": "A"},
    {"problem": "Q", "answer": "A"},
    {"problem": "Q", "output": "A"},
    {"input": "Q", "output": "A"},
    {"input": "Q", "answer": "A"},
]


@pytest.mark.parametrize("row", SHAPES, ids=lambda row: "+".join(row))
def test_every_shape_gives_a_question_and_an_answer(row: dict[str, Any]) -> None:
    example = adapt(row)
    assert (example.question, example.answer) == ("Q", "A")
    assert [message.role for message in example.messages] == ["user", "assistant"]


def test_every_adapter_is_tested() -> None:
    tried = {next(a for a in ADAPTERS if a.fits(row)) for row in SHAPES}
    assert tried == set(ADAPTERS)


def test_an_unknown_shape_names_the_found_and_the_known_keys() -> None:
    with pytest.raises(UnknownShape) as error:
        adapt({"text": "…", "label": 1})
    assert "keys found: label, text." in str(error.value)
    assert all(shape in str(error.value) for shape in known_shapes())


def test_input_follows_the_instruction() -> None:
    assert adapt({"instruction": "Sum up.", "input": "A b c.", "output": "A"}).question == "Sum up.\n\nA b c."


def test_system_turns_stay() -> None:
    turns = [("developer", "Be short."), ("user", "Q"), ("assistant", "A")]
    example = adapt({"messages": [{"role": role, "content": text} for role, text in turns]})
    assert (example.messages[0].role, example.messages[0].content) == ("system", "Be short.")


def test_the_rest_of_the_row_is_kept() -> None:
    row = {"question": "Q", "answer": "A", "tags": ["x"], "source": "outer", "metadata": {"source": "inner", "n": 1}}
    metadata = adapt(row).metadata
    assert metadata["tags"] == ["x"]
    assert (metadata["source"], metadata["n"], metadata["row"]) == ("inner", 1, {"source": "outer"})


@pytest.mark.parametrize(
    ("metadata", "family", "level", "grader"),
    [
        ({"skill": "gsm8k", "difficulty": "medium"}, "gsm8k", 2, "numeric"),
        ({"skill": "babi_qa1", "difficulty": "Hard"}, "babi_qa1", 3, "normalized"),
        ({"skill": "binary"}, "binary", 1, "regex"),
        ({"dataset": "mine", "difficulty": "ultra"}, "mine", 4, "normalized"),
        ({"level": "3"}, "text", 3, "normalized"),
        ({"grader": "exact", "difficulty": "unheard"}, "text", 1, "exact"),
    ],
)
def test_skill_and_difficulty_become_family_and_level(
    metadata: dict[str, Any], family: str, level: int, grader: str
) -> None:
    example = adapt({"question": "Q", "answer": "A", "metadata": metadata})
    assert (example.family, example.level, example.metadata["grader"]) == (family, level, grader)
    assert all(example.metadata[key] == value for key, value in metadata.items() if key != "level")


@pytest.mark.parametrize(("answer", "grader"), [('{"a": 1}', "json"), ("1,250", "numeric"), ("yes", "normalized")])
def test_a_gold_suggests_its_grader(answer: str, grader: str) -> None:
    assert adapt({"question": "Q", "answer": answer}).metadata["grader"] == grader


def test_a_known_family_needs_no_grader() -> None:
    assert "grader" not in adapt({"question": "1+2=", "answer": "1+2=3", "family": "chain_sum", "level": 1}).metadata


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (250, "250"),
        ({"a": [1]}, '{"a": [1]}'),
        ([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], "ab"),
        (True, "true"),
        ("", ""),
    ],
)
def test_content_that_is_not_text_becomes_json(content: Any, text: str) -> None:
    assert adapt({"question": "Q", "answer": content}).answer == text


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"question": "Q", "answer": None}, "null"),
        ({"question": "Q\0", "answer": "A"}, "NUL"),
        ({"question": "\ud800", "answer": "A"}, "surrogate"),
        ({"question": "Q", "answer": [{"type": "image_url", "image_url": {}}]}, "image_url"),
        ({"messages": []}, "empty"),
        ({"messages": "Q"}, "not a list"),
        ({"messages": ["Q"]}, "turn 1"),
        ({"messages": [{"content": "Q"}]}, "turn 1"),
        ({"messages": [{"role": "tool", "content": "Q"}]}, "role 'tool'"),
        ({"messages": [{"role": ["user"], "content": "Q"}]}, "role"),
        ({"conversations": [{"from": "human"}]}, "null"),
        ({"question": "Q", "answer": "A", "metadata": [1]}, "metadata is not an object"),
        ({"question": "Q", "answer": "A", "level": 0}, "level 0"),
        ({"question": "Q", "answer": "A", "level": True}, "level True"),
        ({"question": "Q", "answer": "A", "level": "²"}, "level"),
        ({"question": "Q", "answer": "A", "level": 1.5}, "level 1.5"),
        ({"question": "Q", "answer": "A", "family": 7}, "metadata.family"),
        ({"question": "Q", "answer": "A", "family": "rg"}, "no task family 'rg'"),
        ({"question": "Q", "answer": "A", "family": "rg:nothing"}, "no reasoning-gym dataset 'nothing'"),
        ({"question": "Q", "answer": "A", "grader": "fuzzy"}, "metadata.grader"),
        ({"question": "Q", "answer": "A", "grader": ["exact"]}, "metadata.grader"),
    ],
)
def test_an_unreadable_row_names_the_reason(row: dict[str, Any], words: str) -> None:
    with pytest.raises(DataError, match=words):
        adapt(row)
