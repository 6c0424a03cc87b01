"""Every event of the catalogue in plain words: who announced it, and what happened.

The words are templates of an event's fields, in which ids are replaced by display names. An event of a plug-in has no
words of its own: its fields are shown.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from string import Formatter
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from ratchet.ledger.tables import BatchRow, CheckpointRow, OutboxRow, SuiteRow
from ratchet.views.view_model import plain

ENVELOPE = ("id", "at", "cause", "name", "major")
"""Fields that every event has."""

WORDS: dict[str, tuple[str, str]] = {
    "training.started": ("training", "started {batch}"),
    "checkpoint.saved": ("training", "saved {checkpoint} at step {step:,}"),
    "training.finished": ("training", "finished {batch}, up to {checkpoint}"),
    "training.failed": ("training", "failed on {batch}: {reason}"),
    "queue.low": ("training", "the queue is low: {depth:,} examples, {low_water:,} wanted"),
    "evaluation.requested": ("deployment", "asked for a record of {checkpoint} on {suite}"),
    "checkpoint.evaluated": ("testing", "measured {checkpoint} on {pools}"),
    "checkpoint.broken": ("testing", "found {checkpoint} broken: {reason}"),
    "checkpoint.cleared": ("regression", "found no regression in {checkpoint}"),
    "checkpoint.regressed": ("regression", "found a {severity} regression in {checkpoint}"),
    "ranking.changed": ("comparison", "ranked all checkpoints again; {best_checkpoint} is the best"),
    "checkpoint.calibrated": ("calibration", "measured how sure {checkpoint} may be"),
    "examples.mined": ("mining", "found {count:,} weak items of {checkpoint}"),
    "batch.submitted": ("generation", "submitted {batch}"),
    "batch.queued": ("correction", "let {batch} into the queue"),
    "batch.rejected": ("correction", "rejected {batch}: {reason}"),
    "batch.stored": ("correction", "stored {batch} as rows of {task}"),
    "task.measured": ("curriculum", "compared {checkpoint} with the best before on the tasks that it was taught"),
    "task.used_up": ("generation", "{task} is used up: {reason}"),
    "coverage.measured": ("diversity", "measured what {batch} covers"),
    "curriculum.changed": ("curriculum", "changed the mix (no. {curriculum_id})"),
    "checkpoint.deployed": ("deployment", "{checkpoint} is live"),
    "deployment.refused": ("deployment", "kept the champion, not {checkpoint}: {reason}"),
    "deployment.rolled_back": ("deployment", "rolled back from {checkpoint} to {to_checkpoint}: {reason}"),
}
"""By event: the system that announces it, and what it did. A batch is submitted by the system that it is from."""

ABSENT = "something"
"""In place of a field that an event of another version lacks."""


@dataclass(frozen=True)
class DescribedEvent:
    """An event in words. ``fields`` are its own fields, without those that every event has."""

    row: OutboxRow
    who: str
    text: str
    fields: dict[str, Any]


class Names:
    """Display names of ids: ``#7`` for a checkpoint, the origin and a short id for a batch."""

    def __init__(self, session: Session):
        self._session = session
        self._known: dict[tuple[str, str], str] = {}

    def of(self, kind: str, subject_id: str) -> str:
        known = self._known.get((kind, subject_id))
        if known is None:
            known = self._known[kind, subject_id] = self._look_up(kind, subject_id)
        return known

    def expect(self, kind: str, subject_ids: Iterable[str]) -> None:
        """Look up many checkpoints or batches at once."""
        wanted = [each for each in dict.fromkeys(subject_ids) if (kind, each) not in self._known][:500]
        if kind == "checkpoint":
            checkpoints = select(CheckpointRow.id, CheckpointRow.ordinal).where(CheckpointRow.id.in_(wanted))
            self._known |= {(kind, id): f"#{ordinal}" for id, ordinal in self._session.execute(checkpoints)}
        elif kind == "batch":
            batches = select(BatchRow.id, BatchRow.origin).where(BatchRow.id.in_(wanted))
            self._known |= {(kind, id): f"{origin} batch {id[:6]}" for id, origin in self._session.execute(batches)}

    def _look_up(self, kind: str, subject_id: str) -> str:
        if kind == "checkpoint":
            ordinal = self._session.scalar(select(CheckpointRow.ordinal).where(CheckpointRow.id == subject_id))
            return f"#{ordinal}" if ordinal is not None else f"checkpoint {subject_id[:8]}"
        if kind == "batch":
            origin = self._session.scalar(select(BatchRow.origin).where(BatchRow.id == subject_id))
            return f"{origin} batch {subject_id[:6]}" if origin is not None else f"batch {subject_id[:6]}"
        if kind == "suite":
            suite = self._session.get(SuiteRow, subject_id)
            return f"the {suite.pool if suite else subject_id[:8]} suite"
        if kind == "request":
            checkpoint_id, _, suite_id = subject_id.partition("/")
            return f"{self.of('checkpoint', checkpoint_id)} on {self.of('suite', suite_id.partition('/')[0])}"
        if kind in ("end", "ask"):
            return plain(f"the task {subject_id.rpartition('/')[0]}")
        if kind in ("coverage", "mined"):
            return f"{kind} of {self.of('batch' if kind == 'coverage' else 'checkpoint', subject_id)}"
        return plain(f"{kind} {subject_id[:40]}")


def describe(rows: Iterable[OutboxRow], names: Names) -> list[DescribedEvent]:
    """These events in words, in their order."""
    found = [(row, fields_of(row)) for row in rows]
    for kind in ("checkpoint", "batch"):
        names.expect(
            kind,
            (
                str(value)
                for _, fields in found
                for key, value in fields.items()
                if key.endswith(f"{kind}_id") and value
            ),
        )
    return [_described(row, fields, names) for row, fields in found]


def fields_of(row: OutboxRow) -> dict[str, Any]:
    """The event's own fields."""
    fields: dict[str, Any] = json.loads(row.body)
    return {key: value for key, value in fields.items() if key not in ENVELOPE}


def _described(row: OutboxRow, fields: dict[str, Any], names: Names) -> DescribedEvent:
    if row.name not in WORDS:
        return DescribedEvent(
            row, "", plain(f"{row.name}: " + ", ".join(f"{k} {v}" for k, v in fields.items())), fields
        )
    who, template = WORDS[row.name]
    shown: dict[str, Any] = dict(fields)
    for key, value in fields.items():
        stem, is_id, _ = key.rpartition("_id")
        kind = stem.rpartition("_")[2]
        if is_id and value and kind in ("checkpoint", "batch", "suite"):
            shown[stem] = names.of(kind, str(value))
        elif isinstance(value, list):
            shown[key] = " and ".join(map(str, value))
    if row.name == "batch.submitted":
        who = "correction" if str(shown.get("batch", "")).startswith(("correction", "user")) else who
    return DescribedEvent(row, who, plain(_Lenient().vformat(template, (), shown)), fields)


class _Lenient(Formatter):
    """Formats what an event has, whatever version it is of."""

    def get_value(self, key: int | str, args: Any, kwargs: Any) -> Any:  # noqa: ARG002
        return kwargs.get(key, ABSENT)

    def format_field(self, value: Any, format_spec: str) -> str:
        return format(value, format_spec if isinstance(value, int | float) else "")
