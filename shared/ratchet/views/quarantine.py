"""Rows that the data gate refused, read from a batch's quarantine file a page at a time.

A file may hold a million rows, so that only the lines of a page are decoded.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from ratchet.data.example import Example
from ratchet.errors import PreconditionFailed
from ratchet.ledger.tables import BatchRow, TaskRow

if TYPE_CHECKING:
    from ratchet.artifacts import ArtifactStore

FILE = "quarantine.jsonl"

REASONS = {
    "unreadable": "not JSON, or of no known shape",
    "schema": "no question, no answer, or not what the model's format takes",
    "unknown_question": "its family does not know the question, or it names another level",
    "plugin": "the code of a plug-in failed on it",
    "gold": "the grader does not accept the row's own answer",
    "leak": "the question is held out for testing",
    "near_leak": "nearly the same text is held out for testing",
    "duplicate": "it is in the batch, or among the task's rows, already",
    "near_duplicate": "nearly the same is in the batch, or among the task's rows, already",
    "epoch_cap": "it was trained on as often as allowed",
    "template": "the model's chat template cannot render it",
    "too_long": "it has more tokens than allowed",
}
"""What each reason of the data gate means, in a few words."""


@dataclass(frozen=True)
class QuarantinedRow:
    """A refused row. ``example`` is None where it could not be read; ``detail`` then names its file and line."""

    line: int
    reason: str
    detail: str
    example: Example | None

    @classmethod
    def parse(cls, text: bytes) -> QuarantinedRow:
        told: dict[str, Any] = json.loads(text)
        example = told.get("example")
        return cls(
            line=int(told["line"]),
            reason=str(told["reason"]),
            detail=str(told["detail"]),
            example=Example.model_validate(example) if example is not None else None,
        )


def quarantine_file(artifacts: ArtifactStore, batch: BatchRow) -> Path:
    """The file on this machine, verified. Raises PreconditionFailed for a batch without one, ArtifactError if it is
    gone or damaged."""
    if batch.quarantine_artifact is None:
        raise PreconditionFailed(f"no row of batch {batch.id} is in quarantine.")
    return artifacts.fetch(batch.quarantine_artifact) / FILE


def quarantined_rows(file: Path, reason: str = "", start: int = 0, limit: int = 50) -> list[QuarantinedRow]:
    """Rows in their order, of one reason or all, after ``start`` of them."""
    found: list[QuarantinedRow] = []
    for number, line in enumerate(_lines(file, f'"reason":"{reason}"'.encode() if reason else b"")):
        if number >= start + limit:
            break
        if number >= start:
            found.append(QuarantinedRow.parse(line))
    return found


def quarantined_row(file: Path, line: int) -> QuarantinedRow:
    """The row of that line of the submitted batch. Raises PreconditionFailed if none is in quarantine."""
    wanted = f'{{"line":{line},'.encode()
    with open(file, "rb") as lines:
        for text in lines:
            if text.startswith(wanted):
                return QuarantinedRow.parse(text)
    raise PreconditionFailed(f"no row of line {line} is in quarantine.")


def _lines(file: Path, part: bytes) -> Iterator[bytes]:
    """Lines whose reason is that one; it follows the line number, so that text of a row is never taken for it."""
    with open(file, "rb") as lines:
        for text in lines:
            if not part or text.startswith(part, text.find(b",") + 1):
                yield text


def task_of(session: Session, batch: BatchRow, row: QuarantinedRow) -> str | None:
    """The task that a mended row belongs to: the batch's, else the one that its family names; None for a family."""
    if batch.task is not None:
        return batch.task
    family = row.example.family if row.example is not None else None
    return family if family is not None and session.get(TaskRow, family) is not None else None


def quarantined_total(session: Session) -> tuple[int, int]:
    """Rows in quarantine, and the batches that they are of."""
    query = select(func.coalesce(func.sum(BatchRow.quarantined), 0), func.count()).where(BatchRow.quarantined > 0)
    rows, batches = session.execute(query).one()
    return int(rows), int(batches)
