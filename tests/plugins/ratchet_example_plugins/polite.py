"""A profile with an option: every answer ends with a word of thanks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from ratchet.data.example import Example
from ratchet.errors import DataError
from ratchet.profiles.profile import with_system_turn


@dataclass(frozen=True)
class Polite:
    """``word`` is appended to every answer."""

    name: ClassVar[str] = "polite"
    version: ClassVar[str] = "1"
    word: str = "Thank you."

    def system_prompt(self, base: str) -> str:
        return base

    def transform_example(self, example: Example, system_prompt: str = "") -> Example:
        example = with_system_turn(example, system_prompt)
        turns = tuple(
            turn.model_copy(update={"content": f"{self.extract_answer(turn.content)} {self.word}"})
            if turn.role == "assistant"
            else turn
            for turn in example.messages
        )
        return example.model_copy(update={"messages": turns})

    def logits_processors(self, _tokenizer: Any, /) -> list[Any]:
        return []

    def stop(self) -> tuple[str, ...]:
        return ()

    def tokens(self) -> tuple[str, ...]:
        return ()

    def extract_answer(self, text: str) -> str:
        return text.strip().removesuffix(self.word).strip()

    def validate(self, example: Example) -> None:
        if not example.question:
            raise DataError("the conversation has no user turn")
