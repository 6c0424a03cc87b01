"""The profile ``emoji_think``: every question requests two marks, and the answer is between them.

A mark is one emoji, repeated on a separate line: a thinking mark before the answer, a stop mark after it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

from ratchet.data.example import Example, Message
from ratchet.errors import DataError
from ratchet.profiles.profile import with_system_turn

_TAGS = re.compile(r"</?think>")


@dataclass(frozen=True)
class Mark:
    """An emoji and how often it is repeated."""

    emoji: str
    count: int

    @property
    def text(self) -> str:
        return self.emoji * self.count


@dataclass(frozen=True)
class Marks:
    """A pool of emoji, the counts with their words, and the sentence that requests a mark."""

    name: str
    pool: tuple[str, ...]
    words: Mapping[int, str]
    sentence: str
    """With ``{emoji}`` and ``{count}``."""

    def draw(self, content: str) -> Mark:
        """The mark for a text: a pure function of it, evenly distributed over texts."""
        digest = hashlib.sha256(f"{self.name}\0{content}".encode()).digest()
        counts = sorted(self.words)
        emoji = self.pool[int.from_bytes(digest[:8], "big") % len(self.pool)]
        return Mark(emoji, counts[int.from_bytes(digest[8:16], "big") % len(counts)])

    def instruction(self, mark: Mark) -> str:
        return self.sentence.format(emoji=mark.emoji, count=self.words[mark.count])

    def asked(self, text: str) -> Mark | None:
        """The mark that a text requests, in the last such sentence; None if there is no valid one."""
        found = None
        for match in self._sentences.finditer(text):
            emoji, word = match.groups()
            if emoji in self.pool and word in self._counts:
                found = Mark(emoji, self._counts[word])
        return found

    def check(self, text: str) -> None:
        """Raise DataError if a text requests a mark that does not exist."""
        for match in self._sentences.finditer(text):
            emoji, word = match.groups()
            if emoji not in self.pool:
                raise DataError(f"{match[0]!r}: {emoji} is not a {self.name} emoji. Known: {' '.join(self.pool)}.")
            if word not in self._counts:
                raise DataError(f"{match[0]!r}: /{word}/ is not a count. Known: {', '.join(self._counts)}.")

    def runs(self, before: str) -> list[str]:
        """The text ``before`` followed by every run of an emoji, up to one more than the maximum count."""
        counts = range(1, max(self.words) + 2)
        return [before + emoji * count for emoji in self.pool for count in counts]

    @cached_property
    def run(self) -> str:
        """A regular expression of one emoji of the pool, repeated at least twice."""
        return f"(?:{'|'.join(f'(?:{emoji}){{2,}}' for emoji in self.pool)})"

    @cached_property
    def _counts(self) -> dict[str, int]:
        return {word: count for count, word in self.words.items()}

    @cached_property
    def _sentences(self) -> re.Pattern[str]:
        before, between, after = map(re.escape, re.split(r"\{emoji\}|\{count\}", self.sentence))
        return re.compile(rf"{before}(\S+){between}([^/\n]+){after}")


THINK = Marks(
    "thinking",
    ("🤔", "💭", "🧠", "💡", "🎯", "🔍", "🤨", "🧐", "⚡", "✨"),
    {2: "two", 3: "three", 4: "four", 5: "five", 6: "six", 7: "seven", 8: "eight"},
    "For this task, think with {emoji} /{count}/ times.",
)
STOP = Marks(
    "stop",
    ("🛑", "⛔", "🚫", "❌", "🔴", "⏹️", "🔚", "✋", "🚦", "🛡️"),
    {2: "twice", 3: "three times", 4: "four times"},
    "When finished, emit {emoji} /{count}/ to signal completion.",
)
_PREFIX = re.compile(rf"{THINK.run}\n")
_SUFFIX = re.compile(rf"\n{STOP.run}\Z")


@dataclass(frozen=True)
class EmojiThink:
    """Every question requests marks, and every answer is between them.

    A conversation's marks are drawn from the content of its first question. If a question already requests marks, no
    second request is added, and they apply from there on. So the format of a turn depends only on the turns before it,
    and a conversation that continues is served as it was trained.
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
            turns.append(turn if marks is None else _formatted_turn(turn, *marks))
        return example.model_copy(update={"messages": tuple(turns)})

    def logits_processors(self, tokenizer: Any, /) -> list[Any]:
        from ratchet.profiles.emoji_think.processors import CountedRuns, NoThinkTags

        return [NoThinkTags(tokenizer), CountedRuns(tokenizer)]

    def stop(self) -> tuple[str, ...]:
        return ()

    def tokens(self) -> tuple[str, ...]:
        return (*THINK.pool, *STOP.pool)

    def extract_answer(self, text: str) -> str:
        return bare(text)

    def validate(self, example: Example) -> None:
        if not example.question:
            raise DataError("the conversation has no user turn")
        for turn in example.messages:
            if turn.role == "user":
                THINK.check(turn.content)
                STOP.check(turn.content)


def _marks(question: str, before: tuple[Mark, Mark] | None) -> tuple[Mark, Mark]:
    """The marks that the question requests, else those in force, else those drawn from its content."""
    think, stop = before or (THINK.draw(question), STOP.draw(question))
    return THINK.asked(question) or think, STOP.asked(question) or stop


def _formatted_turn(turn: Message, think: Mark, stop: Mark) -> Message:
    content = turn.content
    if turn.role == "assistant":
        content = formatted(content, think, stop)
    elif turn.role == "user":
        content += "" if THINK.asked(content) else f"\n\n{THINK.instruction(think)}"
        content += "" if STOP.asked(content) else f"\n\n{STOP.instruction(stop)}"
    return turn.model_copy(update={"content": content})


def formatted(text: str, think: Mark, stop: Mark) -> str:
    """The answer between these marks; existing marks are replaced."""
    return f"{think.text}\n{bare(text)}\n{stop.text}"


def bare(text: str) -> str:
    """The answer without marks, outer white space, and ``<think>`` tags (the text inside them is kept).

    A mark is a first or last line with one emoji of the pool repeated at least twice, not necessarily with the
    requested count. Emoji within the answer are kept.
    """
    text = _untagged(text).strip()
    text = _PREFIX.sub("", text, count=1) if _PREFIX.match(text) else text
    return _SUFFIX.sub("", text).strip()


def _untagged(text: str) -> str:
    while _TAGS.search(text):
        text = _TAGS.sub("", text)
    return text
