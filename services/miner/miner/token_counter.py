"""Count an example's tokens with a model's ``tokenizer.json``, without torch or transformers."""

from __future__ import annotations

from pathlib import Path

from ratchet.data.example import Example
from ratchet.errors import DataError
from tokenizers import Tokenizer

TURN_TOKENS = 5
"""What a chat template puts around a turn: opener, role, line ends, end mark."""


class TokenCounter:
    """Tokens of all turns, with what the chat template adds: an estimate that is right to a few tokens a turn."""

    def __init__(self, tokenizer_file: Path):
        if not tokenizer_file.is_file():
            raise DataError(f"{tokenizer_file} is not there; the gate counts tokens with the model's tokenizer.json.")
        self._tokenizer = Tokenizer.from_file(str(tokenizer_file))
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()

    def __call__(self, example: Example) -> int:
        return sum(TURN_TOKENS + self._count(message.content) for message in example.messages)

    def _count(self, text: str) -> int:
        return len(self._tokenizer.encode(text, add_special_tokens=False).ids)
