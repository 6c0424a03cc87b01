"""Every event of Ratchet itself, and the one encoding of events; a plug-in declares its own as further subclasses.

An event announces a fact that is already in the ledger; it carries ids and small numbers only. A receiver ignores
fields that it does not know. A change that an old receiver would misread raises ``major``. How events travel is not
known here.
"""

from __future__ import annotations

import json
import time
import uuid
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ratchet.errors import EventError

CATALOGUE: dict[str, type[Event]] = {}
"""All known events by name; declaring an event enters it here."""


def new_id() -> str:
    """A random 32-digit hexadecimal id."""
    return uuid.uuid4().hex


class Event(BaseModel):
    """The fields of every event. ``cause`` is the id of the event whose handling led to this one."""

    model_config = ConfigDict(frozen=True, extra="ignore", defer_build=True)

    name: ClassVar[str] = ""
    major: ClassVar[int] = 1

    id: str = Field(default_factory=new_id)
    at: float = Field(default_factory=time.time)
    cause: str | None = None

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        CATALOGUE[cls.name] = cls


class TrainingStarted(Event):
    name = "training.started"
    batch_id: str


class CheckpointSaved(Event):
    name = "checkpoint.saved"
    checkpoint_id: str
    step: int
    batch_id: str | None = None


class TrainingFinished(Event):
    name = "training.finished"
    batch_id: str
    checkpoint_id: str


class TrainingFailed(Event):
    name = "training.failed"
    batch_id: str
    reason: str


class QueueLow(Event):
    """Depth in examples: submitted, queued and the untrained rest of the running batch."""

    name = "queue.low"
    depth: int
    low_water: int


class EvaluationRequested(Event):
    name = "evaluation.requested"
    checkpoint_id: str
    suite_id: str


class CheckpointEvaluated(Event):
    name = "checkpoint.evaluated"
    checkpoint_id: str
    pools: tuple[str, ...]


class CheckpointBroken(Event):
    name = "checkpoint.broken"
    checkpoint_id: str
    reason: str


class CheckpointCleared(Event):
    name = "checkpoint.cleared"
    checkpoint_id: str


class CheckpointRegressed(Event):
    name = "checkpoint.regressed"
    checkpoint_id: str
    severity: str


class RankingChanged(Event):
    name = "ranking.changed"
    ranking_id: int
    best_checkpoint_id: str


class CheckpointCalibrated(Event):
    name = "checkpoint.calibrated"
    checkpoint_id: str


class ExamplesMined(Event):
    name = "examples.mined"
    checkpoint_id: str
    count: int


class BatchSubmitted(Event):
    name = "batch.submitted"
    batch_id: str


class BatchQueued(Event):
    name = "batch.queued"
    batch_id: str


class BatchRejected(Event):
    name = "batch.rejected"
    batch_id: str
    reason: str


class BatchStored(Event):
    """Rows of a user's task have passed the data gate; batches are made from them."""

    name = "batch.stored"
    batch_id: str
    task: str


class TaskMeasured(Event):
    """It is known whether the checkpoint is better on the tasks that it was trained on."""

    name = "task.measured"
    checkpoint_id: str


class TaskUsedUp(Event):
    """Nothing that can be made of a task's rows helps any more."""

    name = "task.used_up"
    task: str
    reason: str


class CoverageMeasured(Event):
    name = "coverage.measured"
    batch_id: str


class CurriculumChanged(Event):
    name = "curriculum.changed"
    curriculum_id: int


class CheckpointDeployed(Event):
    name = "checkpoint.deployed"
    checkpoint_id: str
    previous_id: str | None


class DeploymentRefused(Event):
    name = "deployment.refused"
    checkpoint_id: str
    reason: str


class DeploymentRolledBack(Event):
    name = "deployment.rolled_back"
    checkpoint_id: str
    to_checkpoint_id: str
    reason: str


def encode(event: Event) -> str:
    """One JSON object: ``name``, ``major`` and the event's own fields."""
    return json.dumps({"name": event.name, "major": event.major, **event.model_dump(mode="json")})


def decode(text: str | bytes) -> Event:
    """The inverse of encode. Unknown fields are dropped; an unknown name or major version is refused."""
    try:
        fields = json.loads(text)
        kind = CATALOGUE[fields.pop("name")]
        major = fields.pop("major")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise EventError(f"not an event of this catalogue: {text!r:.200} ({error})") from error
    if major != kind.major:
        raise EventError(
            f"{kind.name} has major version {major}, this worker reads {kind.major}; upgrade the older side."
        )
    try:
        return kind.model_validate(fields)
    except ValidationError as error:
        raise EventError(f"{kind.name}: {error}") from error
