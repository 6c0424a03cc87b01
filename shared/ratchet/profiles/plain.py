"""The profile that changes nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from ratchet.data.example import Example
from ratchet.errors import DataError
from ratchet.profiles.profile import with_system_turn


@dataclass(frozen=True)
class Plain:
    """Questions and answers unchanged, after the configured system turn. Reasoning in think tags is not graded."""

    name: ClassVar[str] = "plain"
    version: ClassVar[str] = "2"

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
        return _without_thought(text).strip()

    def validate(self, example: Example) -> None:
        if not example.question:
            raise DataError("the conversation has no user turn")


def _without_thought(text: str) -> str:
    """The text after its reasoning: after blocks that end, also one that the prompt has opened; a block that does not
    end was cut off, and there is no answer."""
    while True:
        thought, end, rest = text.partition("</think>")
        is_opened = thought.lstrip().startswith("<think>")
        if not is_opened and (not end or "<think>" in thought):
            return text
        text = rest
