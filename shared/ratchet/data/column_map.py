"""Which columns of a file are read as which keys of a known shape: as a user says it, and as it can be proposed.

It does not read files.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Final

from ratchet.data.adapters import KEYS, Row, adapt
from ratchet.data.example import Example
from ratchet.data.turns import is_chat
from ratchet.errors import DataError, SettingsError, UnknownShape

_QUESTION_NAMES: Final = (
    *("question", "prompt", "query", "instruction", "problem", "input", "inputtext", "inputs", "source", "sourcetext"),
    *("user", "usermessage", "human", "request", "q", "ask", "task", "utterance", "document", "article", "text"),
)
_ANSWER_NAMES: Final = (
    *("answer", "response", "completion", "output", "target", "targettext", "targets", "outputtext", "reply", "result"),
    *("assistant", "assistantmessage", "bot", "gpt", "a", "summary", "highlights", "goldanswer", "groundtruth"),
    *("reference", "correctanswer", "bestanswer", "solution", "label"),
)
_ID = re.compile(r"(?i)(?:^|_)(?:id|idx|index|uuid|no|nr)$")
_SHOWN = 60
_MOST = 0.75


@dataclass(frozen=True)
class ColumnMap:
    """Pairs of a shape's key and the file's column that is read as it."""

    pairs: tuple[tuple[str, str], ...]

    @classmethod
    def parse(cls, text: str) -> ColumnMap:
        """Read ``question=prompt,answer=completion``. Raises SettingsError for another form or an unknown key."""
        pairs = []
        for part in re.split(r",(?=[^,=]+=)", text):
            key, sign, column = (side.strip() for side in part.partition("="))
            if not sign or not column:
                raise SettingsError(f"{part!r} is not KEY=COLUMN, as in `--map question=prompt,answer=completion`.")
            if key.casefold() not in KEYS:
                raise SettingsError(f"{key!r} is not a key that can be mapped. Known: {', '.join(sorted(KEYS))}.")
            pairs.append((key.casefold(), column))
        for side, names in (("key", [key for key, _ in pairs]), ("column", [column for _, column in pairs])):
            if len(set(names)) < len(names):
                raise SettingsError(f"{text!r} names a {side} twice.")
        return cls(tuple(pairs))

    def __str__(self) -> str:
        """As it is written after ``--map``."""
        return ",".join(f"{key}={column}" for key, column in self.pairs)

    @property
    def keys(self) -> frozenset[str]:
        return frozenset(key for key, _ in self.pairs)

    def apply(self, row: Row) -> Row:
        """The row under the shape's keys. A column of the same name that is not mapped itself is kept under ``row``.

        Raises UnknownShape for a column that the row lacks.
        """
        for _, column in self.pairs:
            if column not in row:
                raise UnknownShape(f"there is no column {column!r}. Columns: {', '.join(map(str, row)) or 'none'}.")
        mapped = {key: row[column] for key, column in self.pairs}
        rest = {name: value for name, value in row.items() if name not in dict(self.pairs).values()}
        displaced = {name: rest.pop(name) for name in list(rest) if name.casefold() in mapped}
        return {**rest, **mapped, **({"row": displaced} if displaced else {})}


@dataclass(frozen=True)
class Proposal:
    """A mapping that reads the sample rows, and the sentence that shows it."""

    mapping: ColumnMap
    sentence: str


def propose_mapping(columns: Sequence[str], samples: Sequence[Row]) -> Proposal | None:
    """A mapping for rows that no shape fits, from the names of their columns and from what they hold.

    None where a shape fits some already, or no mapping reads most of the samples.
    """
    if not samples or _examples(samples, None):
        return None
    for pairs in _candidates(columns, samples):
        mapping = ColumnMap(pairs)
        examples = _examples(samples, mapping)
        if len(examples) >= _MOST * len(samples):
            first = examples[0]
            return Proposal(
                mapping,
                f"No known shape fits the columns {', '.join(columns)}; `--map {mapping}` reads a row as the "
                f"question {_shown(first.question)} and the answer {_shown(first.answer or '')}.",
            )
    return None


def _candidates(columns: Sequence[str], samples: Sequence[Row]) -> list[tuple[tuple[str, str], ...]]:
    found: list[tuple[tuple[str, str], ...]] = []
    chats = [name for name in columns if all(is_chat(row.get(name)) for row in samples)]
    by_name = {re.sub(r"[\W_]+", "", name.casefold()): name for name in columns}
    if chosen := by_name.get("chosen"):  # beside one that people rejected
        question = _first(by_name, _QUESTION_NAMES)
        if chosen in chats:
            return [(("messages", chosen),)]
        return [(("prompt", question), ("completion", chosen))] if question else []
    if len(chats) == 1:
        found.append((("messages", chats[0]),))
    question, answer = _first(by_name, _QUESTION_NAMES), _first(by_name, _ANSWER_NAMES)
    if question and answer:
        found.append((("question", question), ("answer", answer)))
    texts = [name for name in columns if _is_text([row.get(name) for row in samples]) and not _ID.search(name)]
    if len(texts) == 2:
        rest = next((name for name in texts if name not in (question, answer)), None)
        pair = (question or rest, answer or rest) if question or answer else tuple(texts)
        found.append((("question", str(pair[0])), ("answer", str(pair[1]))))
    return found


def _is_text(values: list[Any]) -> bool:
    return all(isinstance(value, str) for value in values) and any(value.strip() for value in values)


def _first(by_name: dict[str, str], names: Collection[str]) -> str | None:
    return next((by_name[name] for name in names if name in by_name), None)


def _examples(samples: Sequence[Row], mapping: ColumnMap | None) -> list[Example]:
    """The samples that can be read so."""
    found = []
    for row in samples:
        try:
            found.append(adapt(row) if mapping is None else adapt(mapping.apply(row), mapping.keys))
        except DataError:
            continue
    return found


def _shown(text: Any) -> str:
    text = " ".join(str(text).split())
    return repr(text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…")
