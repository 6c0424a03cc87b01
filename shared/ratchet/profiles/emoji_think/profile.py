"""The profile ``emoji_think``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from ratchet.data.example import Example, Message
from ratchet.errors import DataError
from ratchet.profiles.emoji_think import answer
from ratchet.profiles.emoji_think.marks import STOP, THINK, Mark
from ratchet.profiles.system_turn import with_system_turn


@dataclass(frozen=True)
class EmojiThink:
    """Every question asks for marks, every answer stands between them.

    A conversation's marks are drawn from the content of its first question. A question that asks for marks itself
    is not asked twice: they hold from there on. So a turn is dressed by what stands before it, and a conversation
    that goes on is served as it was trained.
    """

    name: ClassVar[str] = "emoji_think"
    version: ClassVar[str] = "2"

    def system_prompt(self, base: str) -> str:
        return base

    def transform_example(self, example: Example, system_prompt: str = "") -> Example:
        example = with_system_turn(example, system_prompt)
        marks: tuple[Mark, Mark] | None = None
        turns: list[Message] = []
        for turn in example.messages:
            if turn.role == "user":
                marks = _marks(turn.content, marks)
            turns.append(turn if marks is None else _dressed(turn, *marks))
        return example.model_copy(update={"messages": tuple(turns)})

    def logits_processors(self, tokenizer: Any, /) -> list[Any]:
        from ratchet.profiles.emoji_think.processors import CountedRuns, NoThinkTags

        return [NoThinkTags(tokenizer), CountedRuns(tokenizer)]

    def stop(self) -> tuple[str, ...]:
        return ()

    def tokens(self) -> tuple[str, ...]:
        return (*THINK.pool, *STOP.pool)

    def extract_answer(self, text: str) -> str:
        return answer.bare(text)

    def validate(self, example: Example) -> None:
        if not example.question:
            raise DataError("the conversation has no user turn")
        for turn in example.messages:
            if turn.role == "user":
                THINK.check(turn.content)
                STOP.check(turn.content)


def _marks(question: str, before: tuple[Mark, Mark] | None) -> tuple[Mark, Mark]:
    """What the question asks for itself, else what held before, else what belongs to its content."""
    think, stop = before or (THINK.draw(question), STOP.draw(question))
    return THINK.asked(question) or think, STOP.asked(question) or stop


def _dressed(turn: Message, think: Mark, stop: Mark) -> Message:
    content = turn.content
    if turn.role == "assistant":
        content = answer.dressed(content, think, stop)
    elif turn.role == "user":
        content += "" if THINK.asked(content) else f"\n\n{THINK.instruction(think)}"
        content += "" if STOP.asked(content) else f"\n\n{STOP.instruction(stop)}"
    return turn.model_copy(update={"content": content})
