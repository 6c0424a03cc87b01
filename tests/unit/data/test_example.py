from __future__ import annotations

import json

import pytest
from ratchet.data.example import Example, Message

CALL = {"id": "1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}


def test_a_turn_is_stored_with_the_fields_that_are_set_and_no_others() -> None:
    plain = Example.ask("Q", "A", level=1)
    assert plain.to_line() == (
        '{"messages": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}],'
        ' "metadata": {"level": 1}}'
    )
    assert plain.id == "0a266bac4424c674837ce8e4eefaabea"
    turn = Message(role="assistant", content="", train=False, tool_calls=(CALL,))
    assert json.loads(turn.model_dump_json()) == {
        "role": "assistant",
        "content": "",
        "train": False,
        "tool_calls": [CALL],
    }


@pytest.mark.parametrize(
    "turn",
    [
        Message(role="assistant", content="A", train=False),
        Message(role="assistant", content="A", train=True),
        Message(role="assistant", content="A", tool_calls=(CALL,)),
        Message(role="tool", content="A", tool_call_id="1", name="add"),
    ],
)
def test_turns_with_more_than_text_round_trip_and_have_another_id(turn: Message) -> None:
    question = Message(role="user", content="Q")
    example = Example(messages=(question, turn))
    assert Example.model_validate_json(example.to_line()) == example
    assert example.id != Example(messages=(question, Message(role=turn.role, content="A"))).id


def test_tools_are_those_of_the_metadata() -> None:
    tools = [{"type": "function", "function": {"name": "add"}}]
    assert Example.ask("Q", "A", tools=tools).tools == tools
    assert Example.ask("Q", "A").tools is None
