"""Training rows: a file's examples, in the profile's format, as tokens with a mask of those that are trained."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from ratchet.data.example import Example
from ratchet.data.jsonl import read_examples
from ratchet.errors import ChatTemplateError, DataError
from ratchet.inference.chat_template import Rendered, Tokenizer, chat_template, stop_ids, to_last_answer
from ratchet.profiles.profile import Profile

_ROWS_AT_ONCE = 1024


@dataclass(frozen=True, slots=True)
class Row:
    """One example as tokens. ``trained[i]`` is True if the prediction of ``ids[i]`` counts in the loss."""

    line: int
    """Line number in the file, from 1."""
    ids: NDArray[np.int32]
    trained: NDArray[np.bool_]

    @property
    def trained_tokens(self) -> int:
        """Number of predictions that count in the loss; the first token is never predicted."""
        return int(np.count_nonzero(self.trained[1:]))


@dataclass(frozen=True)
class TrainingRows:
    """The rows of one file, in order, and the line numbers of those left out because they are too long.

    ``refused`` has, by line number, why the chat template or the tokenizer cannot render a row, which is left out too.
    """

    rows: tuple[Row, ...]
    too_long: tuple[int, ...]
    refused: Mapping[int, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def lengths(self) -> NDArray[np.int32]:
        return np.fromiter((len(row.ids) for row in self.rows), np.int32, len(self.rows))

    @property
    def lines(self) -> NDArray[np.int64]:
        return np.fromiter((row.line for row in self.rows), np.int64, len(self.rows))

    @cached_property
    def by_line(self) -> dict[int, Row]:
        return {row.line: row for row in self.rows}


def examples_of(path: Path) -> Iterator[tuple[int, Example]]:
    """Line number and example of every row, in any supported format. Raises DataError at the first unreadable row."""
    for line, example in read_examples(path):
        if isinstance(example, DataError):
            raise example
        yield line, example


def examples_at(path: Path, lines: Collection[int]) -> dict[int, Example]:
    """The examples on these lines, in the given order."""
    wanted, found = set(lines), {}
    for line, example in examples_of(path):
        if line in wanted:
            found[line] = example
            if len(found) == len(wanted):
                break
    return {line: found[line] for line in lines if line in found}


def prepare_rows(
    examples: Iterator[tuple[int, Example]],
    profile: Profile,
    tokenizer: Tokenizer,
    *,
    system_prompt: str,
    max_length: int,
    template_variables: Mapping[str, Any] | None = None,
) -> TrainingRows:
    """Format, render and tokenize. A row that the chat template refuses is left out, as is one that is too long.

    Raises DataError for a row without an answer, or if no row is left, and ChatTemplateError for a template that can
    carry no answer at all.
    """
    template = chat_template(tokenizer, template_variables)
    rows: list[Row] = []
    too_long: list[int] = []
    refused: dict[int, str] = {}
    for lines, formatted in _formatted_batches(examples, profile, system_prompt):
        chats, tools = [example.messages for example in formatted], [example.tools for example in formatted]
        for line, example, result in zip(lines, formatted, template.training_rows(chats, tools), strict=True):
            rendered = result
            if not rows and isinstance(rendered, Rendered):
                rendered = mistake_in_masking(tokenizer, example, rendered) or rendered
            if isinstance(rendered, ChatTemplateError):
                refused[line] = str(rendered)
            elif len(rendered.ids) > max_length:
                too_long.append(line)
            else:
                rows.append(Row(line, np.array(rendered.ids, np.int32), np.array(rendered.trained, np.bool_)))
    check_share(rows)
    if not rows:
        raise DataError(f"nothing to train on: {_why_none(too_long, refused, max_length)}")
    return TrainingRows(tuple(rows), tuple(too_long), refused)


def _why_none(too_long: Sequence[int], refused: Mapping[int, str], max_length: int) -> str:
    reasons = []
    if too_long:
        every = f"all {len(too_long)}" if not refused else f"{len(too_long)}"
        reasons.append(f"{every} rows exceed {max_length} tokens (hyperparams.max_length)")
    if refused:
        line, reason = next(iter(refused.items()))
        reasons.append(f"{len(refused)} rows cannot be rendered, first line {line}: {reason}")
    return "; ".join(reasons) or "the file has no rows"


def mistake_in_masking(tokenizer: Tokenizer, example: Example, row: Rendered) -> ChatTemplateError | None:
    """What is wrong unless the answer and an end token are trained, and the question is not."""
    answer = tokenizer.decode([token for token, mark in zip(row.ids, row.trained, strict=True) if mark])
    context = tokenizer.decode([token for token, mark in zip(row.ids, row.trained, strict=True) if not mark])
    if row.ids[-1] not in stop_ids(tokenizer):
        return ChatTemplateError(
            f"a row ends with {tokenizer.decode([row.ids[-1]])!r}, which is not a stop token in serving"
        )
    if not row.trained[-1] or not context:
        return ChatTemplateError("the chat template has no end token to train, or nothing before the answer")
    if (example.answer or "").strip() not in answer:
        return ChatTemplateError(f"the tokenizer does not keep the answer: {example.answer!r} became {answer!r}")
    if example.question.strip() not in context:
        return ChatTemplateError(f"the chat template drops or alters the question {example.question[:80]!r}")
    return None


def check_share(rows: Sequence[Row]) -> None:
    """Raise ChatTemplateError if no token or every token is trained, which means that masking failed.

    Every row must train its last token, the end of the answer.
    """
    tokens = sum(len(row.ids) for row in rows)
    trained = sum(int(np.count_nonzero(row.trained)) for row in rows)
    if rows and not 0 < trained < tokens:
        raise ChatTemplateError(
            f"{trained:,} of {tokens:,} tokens are trained: the template does not separate answers from questions"
        )
    endless = next((row.line for row in rows if not row.trained[-1]), None)
    if endless is not None:
        raise ChatTemplateError(f"line {endless}: the end of the answer is not trained, so that no answer would end")


def _formatted_batches(
    examples: Iterator[tuple[int, Example]], profile: Profile, system_prompt: str
) -> Iterator[tuple[list[int], list[Example]]]:
    lines: list[int] = []
    formatted: list[Example] = []
    for line, example in examples:
        lines.append(line)
        formatted.append(_formatted(line, example, profile, system_prompt))
        if len(lines) == _ROWS_AT_ONCE:
            yield lines, formatted
            lines, formatted = [], []
    if lines:
        yield lines, formatted


def _formatted(line: int, example: Example, profile: Profile, system_prompt: str) -> Example:
    """The example in the profile's format, to its last answer that is trained."""
    turns = to_last_answer(example.messages)
    if not turns:
        raise DataError(f"line {line}: no assistant turn to train on")
    try:
        profile.validate(example)
    except DataError as error:
        raise DataError(f"line {line}: {error}") from error
    if len(turns) != len(example.messages):
        example = example.model_copy(update={"messages": turns})
    return profile.transform_example(example, system_prompt)
