from __future__ import annotations

import pytest
from ratchet.profiles.profile import get_profile


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (" 7\n", "7"),
        ("<think>\n\n</think>\n\n7", "7"),
        ("\n<think>3 + 4 <think> again</think> 7", "7"),
        ("3 + 4 is</think>\n7", "7"),  # the prompt has opened the block
        ("<think>a</think><think>b</think>7", "7"),
        ("<think>3 + 4 is 7", ""),
        ("Write <think> and </think> around it.", "Write <think> and </think> around it."),
        ("Begin with <think>.", "Begin with <think>."),
    ],
)
def test_reasoning_before_an_answer_is_not_graded(text: str, answer: str) -> None:
    assert get_profile("plain").extract_answer(text) == answer
