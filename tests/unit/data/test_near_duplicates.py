"""Which texts are nearly the same, also where a whole data set shares a long instruction."""

from __future__ import annotations

import pytest
from ratchet.data.near_duplicates import NearDuplicates, common_runs

INSTRUCTION = (
    "You are the support assistant of a railway company. Read the message of the customer below and answer with the "
    "name of the department that is responsible for it, in one word, without any explanation. Message:"
)
MESSAGES = (
    "my train was late",
    "where is my umbrella",
    "the ticket machine took my card",
    "a refund please",
    "the toilet is locked",
    "can my dog come along",
    "a window is broken in coach twelve",
    "who won the raffle",
)
TEXTS = [f"{INSTRUCTION} {message}" for message in MESSAGES]


def test_a_shared_instruction_makes_no_near_duplicates() -> None:
    near = NearDuplicates(TEXTS[:4], common=common_runs(TEXTS))
    assert not [text for text in TEXTS[4:] if near.is_leak(near.sketch(text))]
    unaware = NearDuplicates(TEXTS[:4])
    assert all(unaware.is_leak(unaware.sketch(text)) for text in TEXTS[4:])


@pytest.mark.parametrize("changed", ["the ticket machine took my card again", "well, the ticket machine took my card"])
def test_a_message_with_one_word_more_is_nearly_the_same(changed: str) -> None:
    near = NearDuplicates(TEXTS[:4], common=common_runs(TEXTS))
    assert near.is_leak(near.sketch(f"{INSTRUCTION} {changed}"))


def test_a_run_is_common_in_a_tenth_of_the_texts_and_in_three_at_least() -> None:
    assert common_runs(["a b c d", "a b c e", "f g h"]) == frozenset()
    assert common_runs(["a b c d", "a b c e", "a b c f"]) == {"a b c"}
    assert common_runs(["a b c"] * 9 + [f"word {n} here" for n in range(91)]) == frozenset()
    assert common_runs(["a b c"] * 10 + [f"word {n} here" for n in range(90)]) == {"a b c"}
