"""The profile that changes nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from ratchet.data.example import Example
from ratchet.errors import DataError
from ratchet.profiles.profile import with_system_turn


@dataclass(frozen=True)
class Plain:
    """Questions and answers unchanged, after the configured system turn."""

    name: ClassVar[str] = "plain"
    version: ClassVar[str] = "1"

    def system_prompt(self, base: str) -> str:
        return base

    def transform_example(self, example: Example, system_prompt: str = "") -> Example:
        return with_system_turn(example, system_prompt)

    def logits_processors(self, _tokenizer: Any, /) -> list[Any]:
        return []

    def stop(self) -> tuple[str, ...]:
        return ()

    def tokens(self) -> tuple[str, ...]:
        return ()

    def extract_answer(self, text: str) -> str:
        return text.strip()

    def validate(self, example: Example) -> None:
        if not example.question:
            raise DataError("the conversation has no user turn")
