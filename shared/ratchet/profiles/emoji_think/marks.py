"""The two kinds of marks: which emoji, how often, and the sentences that ask for them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from ratchet.errors import DataError


@dataclass(frozen=True)
class Mark:
    """An emoji and how often it is said."""

    emoji: str
    count: int

    @property
    def text(self) -> str:
        return self.emoji * self.count


@dataclass(frozen=True)
class Marks:
    """A pool of emoji, the counts with their words, and the sentence that asks for one of them."""

    name: str
    pool: tuple[str, ...]
    words: Mapping[int, str]
    sentence: str
    """With ``{emoji}`` and ``{count}``."""

    def draw(self, content: str) -> Mark:
        """The mark that belongs to a text: the same wherever the text stands, evenly spread over texts."""
        digest = hashlib.sha256(f"{self.name}\0{content}".encode()).digest()
        counts = sorted(self.words)
        emoji = self.pool[int.from_bytes(digest[:8], "big") % len(self.pool)]
        return Mark(emoji, counts[int.from_bytes(digest[8:16], "big") % len(counts)])

    def instruction(self, mark: Mark) -> str:
        return self.sentence.format(emoji=mark.emoji, count=self.words[mark.count])

    def asked(self, text: str) -> Mark | None:
        """The mark that a text asks for, in its last such sentence; None where none can be carried out."""
        found = None
        for match in self._sentences.finditer(text):
            emoji, word = match.groups()
            if emoji in self.pool and word in self._counts:
                found = Mark(emoji, self._counts[word])
        return found

    def check(self, text: str) -> None:
        """Raise DataError where a text asks for a mark that there is not."""
        for match in self._sentences.finditer(text):
            emoji, word = match.groups()
            if emoji not in self.pool:
                raise DataError(f"{match[0]!r}: {emoji} is no {self.name} emoji. Known: {' '.join(self.pool)}.")
            if word not in self._counts:
                raise DataError(f"{match[0]!r}: /{word}/ is no count. Known: {', '.join(self._counts)}.")

    def runs(self, before: str) -> list[str]:
        """Every run of an emoji up to one more than may be asked for, behind a text."""
        counts = range(1, max(self.words) + 2)
        return [before + emoji * count for emoji in self.pool for count in counts]

    @cached_property
    def run(self) -> str:
        """A regular expression of one emoji, its group, said at least twice."""
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
