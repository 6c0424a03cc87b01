"""Faults of a generated answer that show without knowing the right one: empty, endless, repeating.

They are guarded for every metric: the loss of a reference answer says nothing about what a model generates by itself.
"""

from __future__ import annotations

from typing import Literal

from ratchet.evaluation.record import ItemRecord

AnswerFault = Literal["empty", "endless", "repeating"]

REPEATS = 8
LONGEST_PERIOD = 16


def answer_faults(record: ItemRecord) -> set[AnswerFault]:
    """The faults of a record's answer. ``endless`` is one that reached the token limit, unless the reference answer is
    known to reach it too.
    """
    found = set[AnswerFault]()
    if not record.answer.strip():
        found.add("empty")
    if record.finish_reason == "length" and (record.gold_tokens or 0) < len(record.token_logprobs):
        found.add("endless")
    if is_repeating(record.answer):
        found.add("repeating")
    return found


def is_repeating(text: str) -> bool:
    """Whether, after its first quarter, a text repeats a string of up to 16 characters at least eight times."""
    tail = text[len(text) // 4 :]
    longest = min(LONGEST_PERIOD, len(tail) // REPEATS)
    return any(tail[period:] == tail[:-period] for period in range(1, longest + 1))
