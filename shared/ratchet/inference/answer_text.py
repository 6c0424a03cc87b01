"""What an answer's tokens say in text, whole or in the making."""

from __future__ import annotations

from collections.abc import Sequence

from ratchet.inference.chat import Tokenizer
from ratchet.inference.generator import Decoding

TOKENS_A_CHARACTER = 4
"""A character takes four byte tokens at most."""


class AnswerText:
    """Reads token ids with one tokenizer. Special tokens are not part of any text."""

    def __init__(self, tokenizer: Tokenizer):
        self._tokenizer = tokenizer

    def whole(self, token_ids: Sequence[int], decoding: Decoding) -> str:
        """The text, cut at the first stop string."""
        return _cut(self._read(token_ids), decoding)

    def wholes(self, rows: Sequence[Sequence[int]], decodings: Sequence[Decoding]) -> list[str]:
        """``whole`` of many rows, with one call of the tokenizer."""
        texts = self._tokenizer.backend_tokenizer.decode_batch(rows, skip_special_tokens=True)
        return [_cut(text, decoding) for text, decoding in zip(texts, decodings, strict=True)]

    def settled(self, token_ids: Sequence[int], decoding: Decoding) -> str:
        """The part of a growing text that further tokens cannot change."""
        text = self.whole(token_ids, decoding).rstrip("\ufffd")
        held_back = max((_overlap(text, stop) for stop in decoding.stop), default=0)
        return text[: len(text) - held_back]

    def says_stop(self, token_ids: Sequence[int], decoding: Decoding) -> bool:
        """Whether the end of the tokens holds a stop string."""
        if not decoding.stop:
            return False
        reach = TOKENS_A_CHARACTER * (max(map(len, decoding.stop)) + 1)
        text = self._read(token_ids[-reach:])
        return any(stop in text for stop in decoding.stop)

    def pieces(self, token_ids: Sequence[int]) -> list[str]:
        """Each token by itself, special ones too."""
        return [str(self._tokenizer.decode([token], skip_special_tokens=False)) for token in token_ids]

    def _read(self, token_ids: Sequence[int]) -> str:
        return str(self._tokenizer.backend_tokenizer.decode(token_ids, skip_special_tokens=True))


def _cut(text: str, decoding: Decoding) -> str:
    cuts = [at for stop in decoding.stop if (at := text.find(stop)) >= 0]
    return text[: min(cuts)] if cuts else text


def _overlap(text: str, stop: str) -> int:
    """How many characters at the end of the text could be the beginning of the stop string."""
    return next((n for n in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:n])), 0)
