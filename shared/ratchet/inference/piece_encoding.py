"""Token ids for the pieces of a rendered chat.

Only a chat template writes control tokens: those that a turn merely spells out, such as ``<|im_end|>`` in a question
about ChatML, are encoded as ordinary text. A piece from the middle of a text gets the tokens that it has in the whole
text, also with tokenizers that put a space before every text (Metaspace, as in Llama 2). Templates are not known here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ratchet.errors import ChatTemplateError

_NONCHARACTER = "\ufdd0"
"""Never assigned to a character (Unicode, section 23.7), so that no tokenizer gives it a meaning."""

_ANCHORS = ("\n", "]", ">", "a")
"""Texts after which a piece is encoded to see which tokens it has within a text."""


@dataclass(frozen=True, slots=True)
class Pieces:
    """The pieces of a text, in order, after ``before``. Control tokens that hold the marker are ordinary text."""

    texts: Sequence[str]
    marker: str = ""
    before: str = ""

    def pairs(self) -> Iterator[tuple[str, str]]:
        """Each piece with the text before it."""
        return zip((self.before, *self.texts[:-1]), self.texts, strict=True)


class PieceEncoder:
    """Encodes with one fast Hugging Face tokenizer, which must not get further tokens afterwards."""

    def __init__(self, tokenizer: Any, end_of_turn: str):
        self._backend = tokenizer.backend_tokenizer
        self._name = tokenizer.name_or_path or "this tokenizer"
        self._unknown = tokenizer.unk_token
        self._control = {
            token.content: (number, token)
            for number, token in tokenizer.added_tokens_decoder.items()
            if token.special or token.content == end_of_turn
        }
        longest_first = sorted(self._control, key=len, reverse=True)
        either = "|".join(map(re.escape, longest_first))
        self._controls = re.compile(f"({either})")
        self._starts = re.compile(f"(?=(?:{either})).", re.DOTALL)
        """The first character of every control token, also of those that overlap."""

    def protect(self, value: Any) -> tuple[Any, str]:
        """The value (a text, or lists and dicts of texts) with control tokens broken up by a marker; and the marker.

        The marker occurs nowhere else. It is empty, and the value is unchanged, if no text spells a control token.
        """
        texts = list(_texts(value))
        if not any(self._starts.search(text) for text in texts):
            return value, ""
        marker = _NONCHARACTER
        while any(marker in text for text in texts):
            marker += _NONCHARACTER
        marked = self._marked(value, marker)
        if spelt := next(filter(None, map(self._controls.search, _texts(marked))), None):
            raise ChatTemplateError(f"{self._name} cannot encode {spelt[0]!r} as ordinary text: leave it out")
        return marked, marker

    def encode(self, rows: Sequence[Pieces]) -> list[list[list[int]]]:
        """Token ids of each piece of each row, without special tokens but those in the texts.

        Raises ChatTemplateError for a text that the tokenizer cannot encode without a control token.
        """
        if self.adds_space:
            found = [self._within(piece, previous) for row in rows for previous, piece in row.pairs()]
        else:
            found = self._ids([piece for row in rows for piece in row.texts])
        encoded = iter(found)
        return [
            [
                self._as_text(piece, row.marker) if row.marker and row.marker in piece else ids
                for piece, ids in zip(row.texts, encoded, strict=False)
            ]
            for row in rows
        ]

    @cached_property
    def adds_space(self) -> bool:
        """Whether a text has other tokens alone than within a text."""
        alone, *within = self._ids(["yes", *(anchor + "yes" for anchor in _ANCHORS[:3])])
        return all(ids[-len(alone) :] != alone for ids in within)

    def whole(self, text: str) -> list[int]:
        """Token ids of a whole text."""
        return self._ids([text])[0]

    def _marked(self, value: Any, marker: str) -> Any:
        if isinstance(value, str):
            return self._starts.sub(lambda first: first[0] + marker, value)
        if isinstance(value, dict):
            return {self._marked(key, marker): self._marked(item, marker) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [self._marked(item, marker) for item in value]
        return value

    def _within(self, piece: str, previous: str) -> list[int]:
        """The tokens that the piece has after the previous one; at the start of a text, those that it has alone."""
        if not previous:
            return self.whole(piece)
        tail = next((text for text in self._control if previous.endswith(text)), previous[-1])
        for anchor in (tail, *_ANCHORS):
            first, both = self._ids([anchor, anchor + piece])
            if both[: len(first)] == first:
                return both[len(first) :]
        raise ChatTemplateError(f"{self._name} merges {piece[:20]!r} with whatever is before it")

    def _as_text(self, piece: str, marker: str) -> list[int]:
        """The template's control tokens as tokens; the text between them, without the marker, as ordinary text."""
        ids: list[int] = []
        for run in self._runs(piece):
            if run in self._control:
                ids.append(self._control[run][0])
                continue
            text, first = run.replace(marker, ""), "\n" if ids and self.adds_space else ""
            found = self._plain_ids(first + text)[len(self._plain_ids(first)) :]
            for token, (number, _) in self._control.items():
                if number in found and token != self._unknown:
                    raise ChatTemplateError(f"{self._name} cannot encode {token!r} as ordinary text: leave it out")
            ids += found
        return ids

    def _runs(self, piece: str) -> Iterator[str]:
        """Control tokens and the texts between them, stripped as the tokenizer does beside some control tokens."""
        parts = self._controls.split(piece)
        for index, part in enumerate(parts):
            text = part
            if index % 2 == 0 and index > 0 and self._control[parts[index - 1]][1].rstrip:
                text = text.lstrip()
            if index % 2 == 0 and index + 1 < len(parts) and self._control[parts[index + 1]][1].lstrip:
                text = text.rstrip()
            if text:
                yield text

    def _plain_ids(self, text: str) -> list[int]:
        return list(self._without_control.encode(text, add_special_tokens=False).ids)

    @cached_property
    def _without_control(self) -> Any:
        """A copy of the tokenizer that knows no special tokens: switching the tokenizer itself would affect threads."""
        copy = type(self._backend).from_str(self._backend.to_str())
        copy.no_truncation()
        copy.no_padding()
        copy.encode_special_tokens = True
        return copy

    def _ids(self, texts: list[str]) -> list[list[int]]:
        self._backend.no_truncation()  # which a tokenizer's file may ask for
        self._backend.no_padding()
        return [encoding.ids for encoding in self._backend.encode_batch_fast(texts, add_special_tokens=False)]


def encode_text(tokenizer: Any, text: str) -> tuple[int, ...]:
    """Token ids of a bare text as the tokenizer encodes one, with at most one begin token."""
    backend = tokenizer.backend_tokenizer
    backend.no_truncation()
    backend.no_padding()
    ids = tuple(backend.encode(text, add_special_tokens=True).ids)
    bos = tokenizer.bos_token_id
    return ids[1:] if bos is not None and ids[:2] == (bos, bos) else ids


def _texts(value: Any) -> Iterator[str]:
    """Every text in a value, keys of dicts included: those of a tool's parameters are a user's text too."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _texts(key)
            yield from _texts(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _texts(item)
