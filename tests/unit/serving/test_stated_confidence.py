"""For which questions a calibration says something."""

from __future__ import annotations

import pytest
from ratchet.data.example import Message
from ratchet.evaluation.confidence import Certainty
from ratchet.inference.generator import Chat, Decoding, Generation
from ratchet.serving.answer_body import Certain
from ratchet.serving.stated_confidence import stated_by

CERTAINTY = Certainty(
    kind="mean", temperature=1.0, threshold=0.8, precision=0.9, fitted_on=100, items={"chain_sum": 150, "bank": 50}
)
ANSWER = Generation(
    text="7",
    token_ids=(1,),
    token_logprobs=(-0.01,),
    finish_reason="stop",
    prompt_tokens=4,
    latency_s=0.1,
    weights="w",
)
GREEDY, SAMPLED = Decoding(), Decoding(temperature=0.7)
NOTHING = Certain(confidence=None, should_abstain=None)


def chat(*contents: str, system: str = "") -> Chat:
    asked = [Message(role="user", content=content) for content in contents]
    return (*([Message(role="system", content=system)] if system else []), *asked)


def stated(asked: Chat, task: str | None = None, decoding: Decoding = GREEDY) -> Certain:
    return stated_by(CERTAINTY, asked, task, decoding)(ANSWER)


def test_a_question_that_a_family_parses_has_a_confidence() -> None:
    assert stated(chat("3+4=")).confidence == pytest.approx(0.99, abs=0.001)
    assert stated(chat("3+4=")).should_abstain is False


@pytest.mark.parametrize(
    "asked",
    [
        chat("What is the capital of France?"),
        chat("Sort the digits of 312."),
        chat("3+4=", system="You are a pirate."),
        chat("3+4=", "and 5+6="),
    ],
    ids=["no family", "a family that was not calibrated", "another system turn", "two turns"],
)
def test_other_questions_have_none(asked: Chat) -> None:
    assert stated(asked) == NOTHING


def test_a_task_of_the_user_is_named_by_the_client() -> None:
    asked = chat("Which account pays the rent?")
    assert stated(asked) == NOTHING
    assert stated(asked, "bank").confidence is not None
    assert stated(asked, "poems") == NOTHING


def test_sampled_answers_have_none() -> None:
    assert stated(chat("3+4="), decoding=SAMPLED) == NOTHING


def test_without_a_calibration_nothing_is_stated() -> None:
    assert stated_by(None, chat("3+4="), None, GREEDY)(ANSWER) == NOTHING
