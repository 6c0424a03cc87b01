"""The profile ``regime3``."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, ClassVar

from ratchet.data.example import Example
from ratchet.errors import DataError
from ratchet.profiles.regime3.markers import END, START, final_answer, problem, wrapped
from ratchet.profiles.regime3.steps import mistake
from ratchet.profiles.system_turn import with_system_turn

INSTRUCTION = (
    f"Reason in prefix form, as (add 2 3) = 5. Put the final answer, and nothing else, between {START} and {END}."
)


@dataclass(frozen=True)
class Regime3:
    """Answers end with their final part between markers, and nothing else in them."""

    name: ClassVar[str] = "regime3"
    version: ClassVar[str] = "2"

    def system_prompt(self, base: str) -> str:
        return f"{base}\n\n{INSTRUCTION}" if base else INSTRUCTION

    def transform_example(self, example: Example, system_prompt: str = "") -> Example:
        example = with_system_turn(example, system_prompt)
        golds = [None] * (len(example.messages) - 1) + [_gold(example)]
        turns = tuple(
            turn.model_copy(update={"content": wrapped(turn.content, gold)}) if turn.role == "assistant" else turn
            for turn, gold in zip(example.messages, golds, strict=True)
        )
        return example.model_copy(update={"messages": turns})

    def logits_processors(self, _tokenizer: Any, /) -> list[Any]:
        return []

    def stop(self) -> tuple[str, ...]:
        return ()

    def tokens(self) -> tuple[str, ...]:
        return (START, END)

    def extract_answer(self, text: str) -> str:
        return final_answer(text)

    def validate(self, example: Example) -> None:
        if not example.question:
            raise DataError("the conversation has no user turn")
        for number, turn in enumerate(example.messages, 1):
            if turn.role == "assistant":
                _check_answer(number, turn.content)


def _check_answer(number: int, text: str) -> None:
    if not text.strip():
        raise DataError(f"turn {number}: an empty answer has no final part")
    wrong = problem(text) or mistake(text.replace(START, "").replace(END, ""))
    if wrong:
        raise DataError(f"turn {number}: {wrong}")


def _gold(example: Example) -> str | None:
    gold = example.metadata.get("gold")
    return gold if gold is None or isinstance(gold, str) else json.dumps(gold, ensure_ascii=False)
