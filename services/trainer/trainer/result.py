"""What a training run returns: a value, whatever happened."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

MODEL_FOLDER = "final_model"
STATE_FOLDER = "state"
"""Of a run's folder: its checkpoint, and what it takes to go on from there exactly."""


class ErrorKind(StrEnum):
    """Why a run failed, in classes that ask for different answers."""

    SETTINGS = "settings"
    """A setting or a profile is wrong: a person must act."""
    DATA = "data"
    """A row cannot be trained on."""
    TEMPLATE = "template"
    """The chat template cannot carry the answers."""
    MODEL = "model"
    """The model or its tokenizer cannot be loaded."""
    RESUME = "resume"
    """The state to go on from does not belong to this model or these rows."""
    DIVERGED = "diverged"
    """The loss is not finite, or far above that of guessing."""
    OUT_OF_MEMORY = "out_of_memory"
    """The device's memory did not suffice: a smaller micro-batch may."""
    SURROUNDINGS = "surroundings"
    """Disk or device trouble: wait and try again."""
    UNEXPECTED = "unexpected"
    """A fault in Ratchet or a library; the message carries the traceback."""


@dataclass(frozen=True)
class TrainingResult:
    """Outcome of one run. ``finished`` says whether every row of the file has been trained on."""

    success: bool
    global_step: int = 0
    runtime_sec: float = 0.0
    last_checkpoint_path: str | None = None
    final_loss: float = 0.0
    """Mean loss over the last stretch of ``monitoring.logging_steps`` steps."""
    summary: dict[str, Any] = field(default_factory=dict)
    error_message: str | None = None
    error_kind: ErrorKind | None = None
    finished: bool = False
    state_path: str | None = None
