"""The record shapes of users' files, and how a row of each becomes an Example.

The table ``ADAPTERS`` lists them; the first whose keys are present is used. Keys may be written in any case. Columns
with a meaning are used or refused by name; every other key goes to ``metadata``, merged with the row's own
``metadata``, which has priority; values that it replaces are kept under ``row``. It does not know what file a row is
from.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

from ratchet.data.choices import ask_choice, gather_choices, list_choices
from ratchet.data.example import Example, Message
from ratchet.data.metadata import complete_metadata
from ratchet.data.turns import chat_of, is_chat, message, read_chat, read_tools, turn_text
from ratchet.errors import DataError, UnknownShape

Row = dict[str, Any]

QUESTIONS: Final = ("user_prompt", "prompt", "query", "instruction", "question", "problem", "input")
"""Keys of a question."""
GOLDS: Final = ("expected_answer", "expected", "answer", "final_answer")
"""Keys of an answer, or, beside one of ``SOLUTIONS``, of its result alone."""
SOLUTIONS: Final = ("assistant_response", "completion", "response", "output", "solution")
"""Keys of an answer in full."""
ANSWERS: Final = (*SOLUTIONS, *GOLDS)
_TAKES_INPUT = ("prompt", "query", "instruction")
"""Questions that ``input`` may follow."""
_SYSTEM = ("system", "system_prompt")
_CHAT = (*_SYSTEM, "tools")
_CONTEXTS = ("context", "passage")
_BEFORE = (*_CONTEXTS, "history")
_RIVALS = (
    frozenset(QUESTIONS) - {"input"},
    frozenset(ANSWERS),
    frozenset(_SYSTEM),
    frozenset(_CONTEXTS),
)
"""Keys of which one, once a user has named a column for it, takes the place of the others."""

_UNUSABLE: Final = {
    "image": "only text can be trained on",
    "images": "only text can be trained on",
    "audio": "only text can be trained on",
    "video": "only text can be trained on",
    "videos": "only text can be trained on",
    "functions": "it is the older form of tools: write it as tools",
}
_PREFERENCES = (
    "these are preference pairs, and training takes one right answer: to train on the chosen ones, name the columns of "
    "the question and of the answer, as in `--map prompt=prompt,completion=chosen`"
)
_TOKENS = "token ids belong to one tokenizer: give the text that they were made from, as prompt and completion"
_UNREADABLE: Final[dict[str, str]] = {
    "rejected": _PREFERENCES,
    "chosen": _PREFERENCES,
    "input_ids": _TOKENS,
    "token_ids": _TOKENS,
    "tokens": _TOKENS,
    "text": "bare text asks nothing: split it into a question and its answer, in columns such as prompt and completion",
}
"""Columns of rows that no adapter reads, and what to do about them."""


@dataclass(frozen=True)
class Columns:
    """A row under lower-case keys. ``used`` collects the keys, as written, that have been read."""

    row: Row
    names: dict[str, str]
    used: set[str] = field(default_factory=lambda: {"metadata"})

    @classmethod
    def of(cls, row: Row, mapped: Collection[str] = ()) -> Columns:
        """Without the rivals of columns that the user has named."""
        names = {name.casefold(): name for name in row}
        names |= {name: name for name in names if name in row}  # where case tells two keys apart
        for group in _RIVALS if mapped else ():
            if not group.isdisjoint(mapped):
                names = {key: name for key, name in names.items() if key not in group or key in mapped}
        return cls(row, names)

    def is_there(self, key: str) -> bool:
        return key in self.names

    def has(self, key: str) -> bool:
        """Whether the column is there with a value: in tables, an absent value is null or empty."""
        return key in self.names and self.row[self.names[key]] not in (None, "", [], {})

    def filled(self, keys: Collection[str]) -> list[str]:
        return [key for key in keys if self.has(key)]

    def first(self, keys: Collection[str]) -> str | None:
        """The first that has a value, else the first that is there."""
        return next(iter(self.filled(keys)), next((key for key in keys if key in self.names), None))

    def take(self, key: str) -> Any:
        """The value, which is thereby not metadata; None if there is none."""
        if key not in self.names:
            return None
        self.used.add(self.names[key])
        return self.row[self.names[key]]


@dataclass(frozen=True)
class Reading:
    """What a row says: its turns, and metadata that follow from the shape."""

    messages: list[Message]
    metadata: Row = field(default_factory=dict)


@dataclass(frozen=True)
class Adapter:
    """One shape: groups of keys of each of which one is needed, the other keys that it reads, and how it reads."""

    shape: str
    required: tuple[tuple[str, ...], ...]
    read: Callable[[Columns], Reading]
    optional: tuple[str, ...] = ()

    @cached_property
    def keys(self) -> frozenset[str]:
        return frozenset(key for group in self.required for key in group) | frozenset(self.optional) | {"gold"}

    def fits(self, columns: Columns, test: Callable[[Columns, str], bool]) -> bool:
        return all(any(test(columns, key) for key in group) for group in self.required)


def _chat(column: str) -> Callable[[Columns], Reading]:
    def read(columns: Columns) -> Reading:
        for key in columns.filled(_BEFORE):
            raise DataError(f"column {key} beside {column}: write it into the turns, or rename the column.")
        return _in_conversation(columns, read_chat(columns.take(column), column))

    return read


def _choices(columns: Columns) -> Reading:
    question, options = _one(columns, QUESTIONS, "question"), str(columns.first(_OPTIONS))
    answer = columns.take(str(columns.first(_PICKS)))
    for key in columns.filled(SOLUTIONS):
        raise DataError(f"column {key} beside {options}: an answer by letter has no other text; rename the column.")
    choices = list_choices(columns.take(options), options)
    asked, letter = ask_choice(_with_context(columns, question, ""), choices, answer)
    turns = [*_history(columns), message("user", asked, question), message("assistant", letter, "answer")]
    return _in_conversation(columns, turns, {"gold": letter, "grader": "choice"})


def _pair(columns: Columns) -> Reading:
    question = _one(columns, QUESTIONS, "question", but="input")
    full, brief = columns.filled(SOLUTIONS), columns.filled(GOLDS)
    if full and brief:
        answer, gold = _one(columns, SOLUTIONS, "answer"), _one(columns, GOLDS, "result")
        metadata = {"gold": turn_text(columns.take(gold), gold)}
    else:
        answer, metadata = _one(columns, ANSWERS, "answer"), {}
    if (question, answer) == ("prompt", "completion") and columns.row.get("label") is False:
        raise DataError("label is false: the completion is one that people rejected.")
    suffix = ""
    if columns.has("input") and question != "input":
        if question not in _TAKES_INPUT:
            raise DataError(_ambiguous("question", (question, "input")))
        suffix = f"\n\n{turn_text(columns.take('input'), 'input')}"
    turns = [*_asked(columns, question, suffix), *_answered(columns, answer)]
    return _in_conversation(columns, [*_history(columns), *turns], metadata)


def _asked(columns: Columns, question: str, suffix: str) -> list[Message]:
    """The question's turn. Answers within a question of several turns are examples, and not trained on."""
    chat = chat_of(columns.row[columns.names[question]])
    if chat is None:
        return [message("user", _with_context(columns, question, suffix), question)]
    if beside := "input" if suffix else next(iter(columns.filled(_CONTEXTS)), None):
        raise DataError(f"{question} is a list of turns: write {beside} into them.")
    columns.take(question)
    turns = read_chat(chat, question)
    return [turn.model_copy(update={"train": False}) if turn.role == "assistant" else turn for turn in turns]


def _answered(columns: Columns, answer: str) -> list[Message]:
    value = columns.take(answer)
    chat = chat_of(value)
    return [message("assistant", value, answer)] if chat is None else read_chat(chat, answer)


def _with_context(columns: Columns, question: str, suffix: str) -> str:
    """The question after its ``context`` or ``passage``, if there is one."""
    asked = turn_text(columns.take(question), question) + suffix
    if not columns.filled(_CONTEXTS):
        return asked
    key = _one(columns, _CONTEXTS, "context")
    context = columns.take(key)
    passages = context if isinstance(context, list) else [context]
    if not all(isinstance(passage, str) for passage in passages):
        raise DataError(f"{key} is neither text nor a list of texts.")
    return "\n\n".join([*(turn_text(passage, key) for passage in passages), asked])


def _history(columns: Columns) -> list[Message]:
    """The turns of ``history``, pairs of a question and its answer."""
    if not columns.has("history"):
        return []
    pairs = columns.take("history")
    if is_chat(pairs):
        return read_chat(pairs, "history")
    if not isinstance(pairs, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in pairs):
        raise DataError("history is not a list of pairs [question, answer].")
    return [
        turn
        for place, (asked, said) in enumerate(pairs, start=1)
        for turn in (
            message("user", asked, f"history: question {place}"),
            message("assistant", said, f"history: answer {place}"),
        )
    ]


def _in_conversation(columns: Columns, turns: list[Message], metadata: Row | None = None) -> Reading:
    """The turns after the system turn that a column states, with the tools that another lists."""
    found = dict(metadata or {})
    if "tools" in columns.names and (tools := read_tools(columns.take("tools"))) is not None:
        found["tools"] = tools
    stated = columns.filled(_SYSTEM)
    if stated:
        system = message("system", columns.take(_one(columns, _SYSTEM, "system prompt")), stated[0])
        if turns[0].role == "system" and turns[0].content != system.content:
            raise DataError(f"column {stated[0]} and the first turn are two different system prompts: keep one.")
        turns = turns if turns[0].role == "system" else [system, *turns]
    return Reading(turns, found)


def _one(columns: Columns, keys: Collection[str], what: str, but: str = "") -> str:
    """The one column of these that holds the question, answer, …; ``but`` may be there beside it.

    Raises DataError where two have different values.
    """
    found = columns.filled(keys)
    rivals = [key for key in found if key != but] if len(found) > 1 else found
    values = [columns.row[columns.names[key]] for key in rivals]
    if any(value != values[0] for value in values):
        raise DataError(_ambiguous(what, rivals))
    for key in rivals:
        columns.take(key)
    return rivals[0] if rivals else str(columns.first(keys))


def _ambiguous(what: str, keys: Collection[str]) -> str:
    chosen = next(iter(keys))
    return f"{' and '.join(keys)} could each be the {what}: say which, as in `--map {chosen}={chosen}`."


_OPTIONS = ("choices", "options")
_PICKS = ("answerkey", "answer_key", "answer_idx", "answer_index", "answer", "correct_answer", "label")

ADAPTERS: tuple[Adapter, ...] = (
    Adapter("messages", (("messages",),), _chat("messages"), optional=_CHAT),
    Adapter("conversations", (("conversations",),), _chat("conversations"), optional=_CHAT),
    Adapter("conversation", (("conversation",),), _chat("conversation"), optional=_CHAT),
    Adapter("multiple choice", (QUESTIONS, _OPTIONS, _PICKS), _choices, optional=(*_BEFORE, *_CHAT)),
    Adapter(
        "question and answer",
        (QUESTIONS, ANSWERS),
        _pair,
        optional=(*_BEFORE, *_CHAT),
    ),
)
KEYS: Final = frozenset[str]().union(*(adapter.keys for adapter in ADAPTERS))
"""Every key that a column may be mapped to."""


def known_shapes() -> list[str]:
    """The shapes with their keys, for error messages."""
    return [f"{each.shape} ({', '.join('|'.join(group) for group in each.required)})" for each in ADAPTERS]


def adapt(row: Row, mapped: Collection[str] = ()) -> Example:
    """Convert a row to an Example. ``mapped`` are keys that the user has named columns for, which must be read.

    Raises UnknownShape, or DataError, naming the field that cannot be read.
    """
    row = _with_choices(row)
    columns = Columns.of(row, mapped)
    adapter = _find(columns, mapped)
    if adapter is None:
        raise UnknownShape(_explain_shape(columns))
    for key in _UNUSABLE.keys() & columns.names.keys():
        if columns.has(key):
            raise UnknownShape(f"column {columns.names[key]}: {_UNUSABLE[key]}.")
    reading = adapter.read(columns)
    if all(turn.train is False for turn in reading.messages if turn.role == "assistant") and _is_answered(reading):
        raise DataError("no turn of the assistant is trained on: each has weight 0.")
    columns.used.update(columns.names[key] for key in columns.names.keys() & KEYS if not columns.has(key))
    metadata = _metadata(row, columns.used, reading.metadata)
    return complete_metadata(Example(messages=tuple(_to_trained_answer(reading.messages)), metadata=metadata))


def _with_choices(row: Row) -> Row:
    """The row with its choices in one column, where each has a column of its own."""
    columns = Columns.of(row)
    pick = columns.first(_PICKS)
    if not columns.filled(QUESTIONS) or columns.filled(_OPTIONS) or pick is None:
        return row
    return gather_choices(row, columns.row[columns.names[pick]], _OPTIONS[0])


def _to_trained_answer(turns: list[Message]) -> list[Message]:
    """Without a closing answer that is not to be trained on: models would be judged by it."""
    while turns[-1].role == "assistant" and turns[-1].train is False:
        last = next(place for place, turn in reversed(list(enumerate(turns[:-1]))) if turn.role == "assistant")
        turns = turns[: last + 1]
    return turns


def _find(columns: Columns, mapped: Collection[str]) -> Adapter | None:
    """The first whose keys all have values; else the first whose keys are there, whose error then names the key."""
    able = [adapter for adapter in ADAPTERS if adapter.keys.issuperset(mapped)] if mapped else ADAPTERS
    tests = (Columns.has, Columns.is_there)
    return next((adapter for test in tests for adapter in able if adapter.fits(columns, test)), None)


def _is_answered(reading: Reading) -> bool:
    return any(turn.role == "assistant" for turn in reading.messages)


def _explain_shape(columns: Columns) -> str:
    found = ", ".join(sorted(map(str, columns.row))) or "none"
    is_pair = columns.filled((*QUESTIONS, *ANSWERS))
    for key, remedy in _UNREADABLE.items():
        if key in columns.names and (remedy == _PREFERENCES or not is_pair):
            return f"keys found: {found}; {remedy}."
    return f"keys found: {found}. Known shapes: {'; '.join(known_shapes())}."


def _metadata(row: Row, read: set[str], implied: Row) -> Row:
    """The rest of the row, overridden by its ``metadata``; what the shape implies holds where neither states it."""
    inner = row.get("metadata")
    if isinstance(inner, str) and inner.strip():  # a cell of a table
        try:
            inner = json.loads(inner)
        except ValueError as error:
            raise DataError(f"metadata is not JSON: {error}.") from error
    inner = inner or {}
    if not isinstance(inner, dict):
        raise DataError("metadata is not an object.")
    outer = {**implied, **{key: value for key, value in row.items() if key not in read}}
    displaced = {
        key: value for key, value in outer.items() if key in inner and inner[key] != value and key not in implied
    }
    return {**outer, **inner, **({"row": displaced} if displaced else {})}
