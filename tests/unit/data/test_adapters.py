"""One small row per shape, what becomes of it, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ratchet.data.adapters import ADAPTERS, Columns, adapt, known_shapes
from ratchet.data.example import Example, Message
from ratchet.errors import DataError, UnknownShape

Q, A = ("user", "Q"), ("assistant", "A")
HISTORY = [["Before?", "Yes."]]
CHAT = [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}]
SHARED_CHAT = [{"from": "human", "value": "Q"}, {"from": "gpt", "value": "A"}]

SHAPES: list[tuple[dict[str, Any], list[tuple[str, str]]]] = [
    ({"messages": CHAT}, [Q, A]),
    ({"Messages": CHAT}, [Q, A]),
    ({"messages": CHAT, "system": "S"}, [("system", "S"), Q, A]),
    ({"messages": CHAT, "prompt": "Q", "prompt_id": "7"}, [Q, A]),
    ({"messages": None, "prompt": "Q", "completion": "A"}, [Q, A]),
    ({"conversations": SHARED_CHAT}, [Q, A]),
    ({"conversations": CHAT}, [Q, A]),
    ({"conversations": SHARED_CHAT, "system_prompt": "S"}, [("system", "S"), Q, A]),
    ({"conversations": SHARED_CHAT, "system": ""}, [Q, A]),
    ({"conversation": SHARED_CHAT}, [Q, A]),
    ({"user_prompt": "Q", "expected_answer": "A"}, [Q, A]),
    ({"user_prompt": "Q", "assistant_response": "A"}, [Q, A]),
    ({"prompt": "Q", "completion": "A"}, [Q, A]),
    ({"prompt": "Q", "expected": "A"}, [Q, A]),
    ({"prompt": "Q", "response": "A"}, [Q, A]),
    ({"query": "Q", "response": "A"}, [Q, A]),
    ({"query": "Q", "answer": "A"}, [Q, A]),
    ({"instruction": "Q", "response": "A"}, [Q, A]),
    ({"instruction": "Q", "output": "A"}, [Q, A]),
    ({"instruction": "Q", "input": "", "output": "A"}, [Q, A]),
    ({"instruction": "Sum up.", "input": "A b c.", "output": "A"}, [("user", "Sum up.\n\nA b c."), A]),
    ({"instruction": "Q", "output": "A", "history": HISTORY}, [("user", "Before?"), ("assistant", "Yes."), Q, A]),
    ({"system": "S", "instruction": "Q", "output": "A", "history": []}, [("system", "S"), Q, A]),
    ({"question": "Q", "answer": "A"}, [Q, A]),
    ({"Question": "Q", "Answer": "A"}, [Q, A]),
    ({"QUESTION": "Q", "Response": "A"}, [Q, A]),
    ({"question": "Q", "context": "C", "answer": "A"}, [("user", "C\n\nQ"), A]),
    ({"question": "Q", "context": ["C", "D"], "answer": "A"}, [("user", "C\n\nD\n\nQ"), A]),
    ({"question": "Q", "passage": "C", "answer": "A"}, [("user", "C\n\nQ"), A]),
    ({"system_prompt": "S", "question": "Q", "response": "A"}, [("system", "S"), Q, A]),
    ({"problem": "Q", "answer": "A"}, [Q, A]),
    ({"problem": "Q", "output": "A"}, [Q, A]),
    ({"problem": "Q", "solution": "A"}, [Q, A]),
    ({"input": "Q", "output": "A"}, [Q, A]),
    ({"input": "Q", "answer": "A"}, [Q, A]),
    ({"question": "Q", "answer": "A", "response": "A"}, [Q, A]),
    ({"prompt": CHAT[:1], "completion": CHAT[1:]}, [Q, A]),
    ({"prompt": CHAT[:1], "completion": "A"}, [Q, A]),
    ({"prompt": CHAT[0], "completion": CHAT[1]}, [Q, A]),
    ({"messages": json.dumps(CHAT)}, [Q, A]),
    ({"prompt": "Q", "completion": CHAT[1:]}, [Q, A]),
    ({"prompt": [{"role": "system", "content": "S"}, *CHAT[:1]], "completion": CHAT[1:]}, [("system", "S"), Q, A]),
]


@pytest.mark.parametrize(("row", "turns"), SHAPES, ids=lambda value: "+".join(value) if isinstance(value, dict) else "")
def test_every_shape_gives_its_turns_and_stays_the_same_once_it_is_stored(
    row: dict[str, Any], turns: list[tuple[str, str]]
) -> None:
    example = adapt(row)
    assert [(message.role, message.content) for message in example.messages] == turns
    assert adapt(json.loads(example.to_line())) == example
    assert not set(row) & set(example.metadata) - {"prompt", "prompt_id"}


def test_every_adapter_is_tested() -> None:
    rows = [row for row, _ in SHAPES] + [{"question": "Q", "choices": ["a", "b"], "answer": 1}]
    tried = {next(a for a in ADAPTERS if a.fits(Columns.of(row), Columns.has)) for row in rows}
    assert tried == set(ADAPTERS)


@pytest.mark.parametrize(
    "row",
    [
        {"choices": ["one", "two", "three"], "answer": 1},
        {"choices": ["one", "two", "three"], "answer": "1"},
        {"choices": ["one", "two", "three"], "answer": "b"},
        {"choices": ["one", "two", "three"], "answer": "two"},
        {"options": {"A": "one", "B": "two", "C": "three"}, "answer": "two", "answer_idx": "B"},
        {"choices": {"label": ["A", "B", "C"], "text": ["one", "two", "three"]}, "answerKey": "B"},
        {"choices": {"label": ["1", "2", "3"], "text": ["one", "two", "three"]}, "answerKey": "2"},
        {"Choices": '["one", "two", "three"]', "Answer": "B"},
        {"A": "one", "B": "two", "C": "three", "D": "", "Answer": "b"},
        {"option_a": "one", "option_b": "two", "option_c": "three", "answer": "two"},
        {"Option 1": "one", "Option 2": "two", "Option 3": "three", "answer": 2},
        {"opa": "one", "opb": "two", "opc": "three", "opd": None, "answer": 1},
    ],
)
def test_choices_are_lettered_and_the_answer_is_a_letter(row: dict[str, Any]) -> None:
    example = adapt({"question": "Which?", **row})
    assert example.question == "Which?\nA. one\nB. two\nC. three"
    assert (example.answer, example.metadata["gold"], example.metadata["grader"]) == ("B", "B", "choice")


def test_columns_of_one_letter_are_choices_only_where_the_answer_is_a_letter() -> None:
    example = adapt({"question": "3+4=", "a": 3, "b": 4, "answer": 7})
    assert (example.question, example.answer, example.metadata["a"]) == ("3+4=", "7", 3)


def test_a_number_among_numbers_is_an_index_only_where_the_choices_are_text() -> None:
    assert adapt({"question": "0+1=", "choices": ["2", "1", "0"], "answer": 0}).answer == "A"
    assert adapt({"question": "4+5=", "choices": [8, 9], "answer": 9}).answer == "B"
    with pytest.raises(DataError, match="could be any of the choices A, B"):
        adapt({"question": "0+1=", "choices": [1, 0], "answer": 1})


SOLUTION = "Half of 48 is 24.\n48 + 24 = 72\n#### 72"


@pytest.mark.parametrize(
    ("row", "answer", "gold"),
    [
        ({"question": "Q", "answer": SOLUTION}, SOLUTION, "72"),
        ({"messages": [CHAT[0], {"role": "assistant", "content": SOLUTION}]}, SOLUTION, "72"),
        ({"problem": "Q", "solution": "So it is 72.", "answer": "72"}, "So it is 72.", "72"),
        ({"problem": "Q", "solution": r"So \boxed{1} or \boxed{72}."}, r"So \boxed{1} or \boxed{72}.", "72"),
        ({"problem": "Q", "solution": r"So \boxed{\frac{1}{2}}."}, r"So \boxed{\frac{1}{2}}.", r"\frac{1}{2}"),
        ({"prompt": "Q", "response": "Long.", "answer": "72"}, "Long.", "72"),
        ({"question": "Q", "answer": "## 1\n#### Part\ntext"}, "## 1\n#### Part\ntext", None),
        ({"question": "Q", "answer": "A", "gold": "B"}, "A", "B"),
    ],
)
def test_a_solution_is_the_answer_and_its_result_the_gold(row: dict[str, Any], answer: str, gold: str | None) -> None:
    example = adapt(row)
    assert (example.answer, example.metadata.get("gold")) == (answer, gold)
    if gold == "72":
        assert example.metadata["grader"] == "numeric"
    assert adapt(json.loads(example.to_line())) == example


CALL = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1, "b": 2}'}}
TOOLS = [{"type": "function", "function": {"name": "add"}}]


def test_tool_calls_and_what_tools_answer_are_turns() -> None:
    turns = [
        {"role": "user", "content": "1+2?"},
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "c1", "name": "add", "content": "3"},
        {"role": "assistant", "content": "It is 3."},
    ]
    example = adapt({"messages": turns, "tools": TOOLS})
    assert example.tools == TOOLS
    assert example.messages[1:3] == (
        Message(role="assistant", content="", tool_calls=(CALL,)),
        Message(role="tool", content="3", tool_call_id="c1", name="add"),
    )
    assert adapt(json.loads(example.to_line())) == example


def test_sharegpt_with_tools_is_read_as_the_same() -> None:
    turns = [
        {"from": "human", "value": "1+2?"},
        {"from": "function_call", "value": '{"name": "add", "arguments": {"a": 1, "b": 2}}'},
        {"from": "observation", "value": "3"},
        {"from": "gpt", "value": "It is 3."},
    ]
    example = adapt({"conversations": turns, "tools": '[{"name": "add"}]'})
    assert [turn.role for turn in example.messages] == ["user", "assistant", "tool", "assistant"]
    assert example.messages[1].tool_calls == ({**CALL, "id": "call_1"},)
    assert example.tools == TOOLS


@pytest.mark.parametrize("field", [{"weight": 0}, {"weight": 0.0}, {"train": False}, {"loss": False}])
def test_a_turn_that_is_not_to_be_trained_on_says_so(field: dict[str, Any]) -> None:
    turns = [CHAT[0], {**CHAT[1], **field}, CHAT[0], {**CHAT[1], "weight": 1}]
    assert [turn.train for turn in adapt({"messages": turns}).messages] == [None, False, None, None]


def test_a_closing_answer_that_is_not_trained_on_is_no_gold() -> None:
    wrong = [CHAT[0], {"role": "assistant", "content": "wrong", "weight": 0}]
    assert adapt({"messages": [*CHAT, *wrong, *wrong]}).messages == adapt({"messages": CHAT}).messages
    assert [turn.content for turn in adapt({"messages": [*wrong, *CHAT, *wrong]}).messages] == ["Q", "wrong", "Q", "A"]


def test_answers_within_a_prompt_are_examples_that_are_not_trained_on() -> None:
    example = adapt({"prompt": [*CHAT, CHAT[0]], "completion": CHAT[1:]})
    assert [turn.train for turn in example.messages] == [None, False, None, None]


def test_named_columns_take_the_place_of_others() -> None:
    row = {"question": "Q", "answer": "no", "response": "A", "messages": CHAT}
    example = adapt(row, mapped={"question", "response"})
    assert (example.question, example.answer) == ("Q", "A")
    assert (example.metadata["answer"], example.metadata["messages"]) == ("no", CHAT)


def test_an_unknown_shape_names_the_found_and_the_known_keys() -> None:
    with pytest.raises(UnknownShape) as error:
        adapt({"words": "…", "label": 1})
    assert "keys found: label, words." in str(error.value)
    assert all(shape in str(error.value) for shape in known_shapes())


def test_system_turns_stay() -> None:
    turns = [("developer", "Be short."), ("user", "Q"), ("assistant", "A")]
    example = adapt({"messages": [{"role": role, "content": text} for role, text in turns], "system": "Be short."})
    assert [(turn.role, turn.content) for turn in example.messages] == [("system", "Be short."), *turns[1:]]


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
        ({"level": "Level 5"}, "text", 5, "normalized"),
        ({"level": "hard"}, "text", 3, "normalized"),
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
        (0, "0"),
        (5.5, "5.5"),
        ({"a": [1]}, '{"a": [1]}'),
        ([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], "ab"),
        (True, "true"),
        (False, "false"),
    ],
)
def test_content_that_is_not_text_becomes_json(content: Any, text: str) -> None:
    assert adapt({"question": "Q", "answer": content}).answer == text


PAIR = {"question": "Q", "answer": "A"}


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"question": "Q", "answer": None}, "answer is null"),
        ({"question": "Q", "answer": ""}, "empty"),
        ({"question": "Q", "answer": " \n"}, "empty"),
        ({"question": "Q\0", "answer": "A"}, "NUL"),
        ({"question": "\ud800", "answer": "A"}, "surrogate"),
        ({"question": "Q", "answer": [{"type": "image_url", "image_url": {}}]}, "image_url"),
        ({"messages": []}, "messages is empty"),
        ({"messages": "Q"}, "not a list"),
        ({"messages": ["Q"]}, "turn 1"),
        ({"messages": [{"content": "Q"}]}, "turn 1"),
        ({"messages": [{"role": "critic", "content": "Q"}]}, "turn 1: role 'critic'"),
        ({"messages": [{"role": ["user"], "content": "Q"}]}, "role"),
        ({"messages": [CHAT[0], {"role": "assistant", "content": ""}]}, r"turn 2 \(assistant\) is empty"),
        ({"messages": [CHAT[0], {"role": "assistant", "content": ""}, *CHAT]}, r"turn 2 \(assistant\) is empty"),
        ({"messages": [CHAT[0], {"role": "assistant", "content": None, "tool_calls": []}]}, "null"),
        ({"messages": [CHAT[0], {"role": "assistant", "tool_calls": [{"id": "1"}]}]}, "names no function"),
        ({"messages": [{**CHAT[0], "tool_calls": [CALL]}, CHAT[1]]}, "only an assistant's turn has tool_calls"),
        ({"messages": [CHAT[0], {**CHAT[1], "function_call": {"name": "f"}}]}, "tool_calls"),
        ({"messages": [CHAT[0], {**CHAT[1], "reasoning_content": "Hm."}]}, "reasoning_content"),
        ({"messages": [CHAT[0], {**CHAT[1], "weight": 0.5}]}, "weight 0.5"),
        ({"messages": [CHAT[0], {**CHAT[1], "train_detail": [{"begin_offset": 0}]}]}, "train_detail"),
        ({"messages": [CHAT[0], {**CHAT[1], "weight": 0}]}, "no turn of the assistant is trained on"),
        ({"messages": [{**CHAT[0], "train": True}, CHAT[1]]}, "only an assistant's turn can be trained on"),
        ({"messages": CHAT, "tools": "add"}, "tools is not JSON"),
        ({"messages": CHAT, "context": "C"}, "column context beside messages"),
        ({"messages": CHAT, "history": HISTORY}, "column history beside messages"),
        ({"messages": CHAT, "passage": "P"}, "column passage beside messages"),
        ({"prompt": CHAT[:1], "passage": "P", "completion": "A"}, "write passage into them"),
        ({"question": "Q", "context": "C", "passage": "P", "answer": "A"}, "could each be the context"),
        ({"question": "Q", "option_a": "a", "option_b": "b", "answer": "c"}, "none of the 2 choices"),
        ({"messages": [{"role": "system", "content": "S"}, *CHAT], "system": "T"}, "two different system prompts"),
        ({"messages": CHAT, "images": ["a.png"]}, "column images"),
        ({"messages": CHAT, "functions": [{"name": "f"}]}, "column functions"),
        ({"conversations": [{"from": "human"}]}, "null"),
        ({"conversations": [{"from": "function_call", "value": "add(1)"}]}, "not JSON"),
        ({**PAIR, "metadata": [1]}, "metadata is not an object"),
        ({**PAIR, "history": "before"}, "history is not a list of pairs"),
        ({**PAIR, "context": {"title": "T"}}, "context is neither text nor a list"),
        ({**PAIR, "prompt": "another"}, "prompt and question could each be the question"),
        ({"question": "Q", "response": "A", "output": "B"}, "response and output could each be the answer"),
        ({"question": "Q", "input": "I", "output": "A"}, "question and input could each be the question"),
        ({"prompt": "Q", "completion": "A", "label": False}, "label is false"),
        ({"prompt": "Q", "chosen": "A", "rejected": "B"}, "preference pairs.*--map prompt=prompt,completion=chosen"),
        ({"text": "Once upon a time."}, "bare text asks nothing"),
        ({"input_ids": [1, 2]}, "token ids"),
        ({"question": "Q", "choices": ["a", "b"], "answer": 2}, "none of the 2 choices"),
        ({"question": "Q", "choices": ["a", "b"], "answer": -1}, "none of the 2 choices"),
        ({"question": "Q", "choices": ["B", "A"], "answer": "A"}, "could be any of the choices A, B"),
        ({"question": "Q", "choices": ["a"], "answer": 0}, "not a list of 2 to 26 choices"),
        ({"question": "Q", "choices": {"label": ["A"], "text": ["a", "b"]}, "answerKey": "A"}, "1 labels for 2 texts"),
        ({"question": "Q", "choices": ["a", "b"], "answer": 0, "solution": "S"}, "column solution beside choices"),
        ({**PAIR, "level": 0}, "level 0"),
        ({**PAIR, "level": True}, "level True"),
        ({**PAIR, "level": "²"}, "level"),
        ({**PAIR, "level": 1.5}, "level 1.5"),
        ({**PAIR, "family": 7}, "metadata.family"),
        ({**PAIR, "family": "rg"}, "no task family 'rg'"),
        ({**PAIR, "family": "rg:nothing"}, "no reasoning-gym dataset 'nothing'"),
        ({**PAIR, "grader": "fuzzy"}, "metadata.grader"),
        ({**PAIR, "grader": ["exact"]}, "metadata.grader"),
    ],
)
def test_an_unreadable_row_names_the_reason(row: dict[str, Any], words: str) -> None:
    with pytest.raises(DataError, match=words):
        adapt(row)


TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1).filter(str.strip)
VALUES = st.recursive(st.none() | st.booleans() | st.integers() | TEXT, lambda inner: st.lists(inner, max_size=3))


@settings(max_examples=40)
@given(question=TEXT, answer=TEXT, rest=st.dictionaries(st.sampled_from(["tags", "id", "Title", "note"]), VALUES))
def test_any_text_and_the_rest_of_the_row_survive(question: str, answer: str, rest: dict[str, Any]) -> None:
    example = adapt({**rest, "Question": question, "ANSWER": answer})
    assert (example.question, example.answer) == (question, answer)
    assert {key: example.metadata[key] for key in rest} == rest
    assert adapt(json.loads(example.to_line())) == example
    assert Example.model_validate_json(example.model_dump_json()) == example


@settings(max_examples=100)
@given(
    row=st.dictionaries(
        st.sampled_from([*sorted(set().union(*(adapter.keys for adapter in ADAPTERS))), "text", "metadata"]),
        VALUES | st.just(CHAT) | st.just(HISTORY),
        max_size=6,
    )
)
def test_any_row_is_read_or_refused(row: dict[str, Any]) -> None:
    try:
        example = adapt(row)
    except DataError:
        return
    assert adapt(json.loads(example.to_line())) == example
