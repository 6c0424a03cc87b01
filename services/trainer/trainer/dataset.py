"""Training rows: a file's examples, in the profile's format, as tokens with a mask of those that are trained."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from ratchet.data.example import Example
from ratchet.data.jsonl import read_examples
from ratchet.errors import ChatTemplateError, DataError
from ratchet.inference.chat_template import (
    Rendered,
    Tokenizer,
    end_of_turn,
    render_training,
    render_training_batch,
    stop_ids,
)
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
    """The rows of one file, in order, and the line numbers of those left out because they are too long."""

    rows: tuple[Row, ...]
    too_long: tuple[int, ...]

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
) -> TrainingRows:
    """Apply the profile, render and tokenize. Raises DataError for a row without an answer, or if no row is left."""
    rows: list[Row] = []
    too_long: list[int] = []
    for lines, formatted in _formatted_batches(examples, profile, system_prompt):
        rendered = _rendered(lines, formatted, tokenizer)
        for line, example, row in zip(lines, formatted, rendered, strict=True):
            if not rows:
                check_masking(tokenizer, example, row.ids, row.trained)
            if len(row.ids) > max_length:
                too_long.append(line)
                continue
            rows.append(Row(line, np.array(row.ids, np.int32), np.array(row.trained, np.bool_)))
    check_share(rows)
    if too_long and not rows:
        raise DataError(
            f"nothing to train on: all {len(too_long)} rows exceed {max_length} tokens (hyperparams.max_length)"
        )
    if not rows:
        raise DataError("nothing to train on: the file has no rows")
    return TrainingRows(tuple(rows), tuple(too_long))


def _rendered(lines: Sequence[int], formatted: Sequence[Example], tokenizer: Tokenizer) -> list[Rendered]:
    """The rows as tokens. Raises ChatTemplateError, naming the first line that the template cannot render."""
    try:
        return render_training_batch(tokenizer, [example.messages for example in formatted])
    except ChatTemplateError:
        end_of_turn(tokenizer)
    for line, example in zip(lines, formatted, strict=True):
        try:
            render_training(tokenizer, example.messages)
        except ChatTemplateError as error:
            raise ChatTemplateError(f"line {line}: {error}") from error
    raise AssertionError("rows that cannot be rendered together can be rendered one by one")


def check_masking(tokenizer: Tokenizer, example: Example, ids: Sequence[int], trained: Sequence[bool]) -> None:
    """Raise ChatTemplateError unless the answer and an end token are trained, and the question is not."""
    answer = tokenizer.decode([token for token, mark in zip(ids, trained, strict=True) if mark])
    context = tokenizer.decode([token for token, mark in zip(ids, trained, strict=True) if not mark])
    if ids[-1] not in stop_ids(tokenizer):
        raise ChatTemplateError(
            f"a row ends with {tokenizer.decode([ids[-1]])!r}, which is not a stop token in serving"
        )
    if not trained[-1] or not context:
        raise ChatTemplateError("the chat template has no end token to train, or nothing before the answer")
    if (example.answer or "").strip() not in answer:
        raise ChatTemplateError(f"the tokenizer does not keep the answer: {example.answer!r} became {answer!r}")
    if example.question.strip() not in context:
        raise ChatTemplateError(f"the chat template drops or alters the question {example.question[:80]!r}")


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
        formatted.append(_apply_profile(line, example, profile, system_prompt))
        if len(lines) == _ROWS_AT_ONCE:
            yield lines, formatted
            lines, formatted = [], []
    if lines:
        yield lines, formatted


def _apply_profile(line: int, example: Example, profile: Profile, system_prompt: str) -> Example:
    turns = example.messages
    while turns and turns[-1].role != "assistant":
        turns = turns[:-1]
    if not turns:
        raise DataError(f"line {line}: no assistant turn to train on")
    try:
        profile.validate(example)
    except DataError as error:
        raise DataError(f"line {line}: {error}") from error
    if len(turns) != len(example.messages):
        example = example.model_copy(update={"messages": turns})
    return profile.transform_example(example, system_prompt)
