"""Previews: answers of a model in training to a few questions. They are for display and affect no decision."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, ValidationError

from ratchet.atomic_files import atomic_write
from ratchet.errors import DataError
from ratchet.lines import split_lines

if TYPE_CHECKING:
    from ratchet.data.example import Example
    from ratchet.inference.generator import Generation
    from ratchet.inference.prompt_format import PromptFormat

JOURNAL = "previews.jsonl"
"""File name of the journal, in the folder of status files."""
JOURNAL_LIMIT_BYTES = 2_000_000
BLOCK_BYTES = 65_536


class Preview(BaseModel):
    """One question, its answer, and the grade. ``step`` is the global step.

    ``correct`` is None for a row that no grader checks, as of free text. ``seen`` is True if the row had already been
    trained on in this batch. ``weights`` is the digest of the weights that answered.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    at: float
    step: int
    backend: str
    weights: str
    line: int
    seen: bool
    family: str | None
    level: int
    question: str
    gold: str
    answer: str
    extracted: str | None
    correct: bool | None
    error: str | None
    tokens: int
    latency_s: float


def graded(example: Example, generation: Generation, prompt_format: PromptFormat, **known: Any) -> Preview:
    """Grade an answer by the family's grader (or the declared one), after the profile has extracted it.

    ``known`` are the fields that come from neither example nor answer. ``error`` is set if a row cannot be graded.
    """
    from ratchet.tasks.graders import gold, grade_example  # imports all task families, not needed to read previews

    extracted, is_correct, error, expected = None, None, None, example.answer or ""
    try:
        if example.metadata.get("metric", "accuracy") == "accuracy":
            grade = grade_example(example, prompt_format.parse(generation.text))
            extracted, is_correct, error, expected = grade.extracted, grade.correct, grade.error, gold(example)
    except DataError as ungradable:
        is_correct, error = False, str(ungradable)
    return Preview(
        weights=generation.weights,
        family=example.family,
        level=example.level,
        question=example.question,
        gold=expected,
        answer=generation.text,
        extracted=extracted,
        correct=is_correct,
        error=error,
        tokens=len(generation.token_ids),
        latency_s=generation.latency_s,
        **known,
    )


def append_previews(journal: Path, previews: Sequence[Preview], limit_bytes: int = JOURNAL_LIMIT_BYTES) -> None:
    """Append to the journal. If it exceeds the limit, its older half is removed first."""
    if journal.exists() and journal.stat().st_size > limit_bytes:
        lines = split_lines(journal.read_bytes().decode(errors="replace"))
        atomic_write(journal, "".join(f"{line}\n" for line in lines[len(lines) // 2 :]))
    journal.parent.mkdir(parents=True, exist_ok=True)
    with journal.open("ab") as file:
        begun = b"" if _ends_a_line(journal) else b"\n"  # so that a truncated line does not corrupt the next one
        file.write(begun + b"".join(f"{preview.model_dump_json()}\n".encode() for preview in previews))


def _ends_a_line(journal: Path) -> bool:
    with journal.open("rb") as file:
        if file.seek(0, os.SEEK_END) == 0:
            return True
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"


def read_previews(journal: Path, limit: int) -> list[Preview]:
    """The last ``limit`` previews, newest last; lines truncated by a crash are skipped."""
    found: list[Preview] = []
    for text in _lines_from_the_end(journal):
        try:
            found.append(Preview.model_validate(json.loads(text)))
        except (ValueError, ValidationError):
            continue
        if len(found) == limit:
            break
    return found[::-1]


def _lines_from_the_end(journal: Path) -> Iterator[bytes]:
    """Lines in reverse order, reading the file only as far back as needed. Empty if the file is missing."""
    try:
        file = journal.open("rb")
    except FileNotFoundError:
        return
    with file:
        place, begun = file.seek(0, os.SEEK_END), b""
        while place > 0:
            size = min(BLOCK_BYTES, place)
            place = file.seek(place - size)
            begun, *lines = (file.read(size) + begun).split(b"\n")
            yield from reversed(lines)
        yield begun
