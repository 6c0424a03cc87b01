"""The input and output of a training process: ``SegmentSpec``, ``TrainingResult`` and ``SegmentResult``.

A segment is one bounded stretch of training, from a saved state to the next. Specs and results cross the process
boundary as JSON and are encoded and decoded only here. This module imports no torch, since the worker uses it too.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from ratchet.errors import SettingsError
from ratchet.settings.section import reveal
from ratchet.settings.sources import explain
from ratchet.settings.training import ModelSettings, TrainerConfig

MODEL_FOLDER = "final_model"
STATE_FOLDER = "state"
"""Sub-folders of a run: its checkpoint, and the training state that belongs to it."""

STATE_FILE = "state.json"
"""File in the state folder: the part of the state that can be read without torch."""

FULL = "full"


class ErrorKind(StrEnum):
    """Why a run failed, in classes that need different reactions."""

    SETTINGS = "settings"
    """A setting or a profile is wrong: a person must act."""
    DATA = "data"
    """A row cannot be trained on."""
    TEMPLATE = "template"
    """The chat template cannot render the rows."""
    MODEL = "model"
    """The model or its tokenizer cannot be loaded."""
    RESUME = "resume"
    """The state to resume from does not belong to this model or these rows."""
    DIVERGED = "diverged"
    """The loss is not finite, or far above that of guessing."""
    OUT_OF_MEMORY = "out_of_memory"
    """The device ran out of memory; a smaller micro-batch may fit."""
    TRANSIENT = "transient"
    """A problem with a disk or a device: wait and try again."""
    UNEXPECTED = "unexpected"
    """A bug in Ratchet or a library; the message has the traceback."""


@dataclass(frozen=True)
class TrainingResult:
    """Outcome of one run. ``finished`` is True if every row of the file has been trained on."""

    success: bool
    global_step: int = 0
    runtime_sec: float = 0.0
    last_checkpoint_path: str | None = None
    final_loss: float = 0.0
    """Mean loss over the last ``monitoring.logging_steps`` steps or fewer."""
    summary: dict[str, Any] = field(default_factory=dict)
    error_message: str | None = None
    error_kind: ErrorKind | None = None
    finished: bool = False
    state_path: str | None = None


class SegmentSpec(BaseModel):
    """One segment to train. ``ranks`` is the number of processes that train it together on this machine."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    config: TrainerConfig
    status_path: Path | None = None
    """File for the live status; by default in the output folder."""
    ranks: int = 1

    def encode(self) -> dict[str, Any]:
        """The spec as JSON data. It contains secrets: never log or store it."""
        return reveal(self)

    def limited_to(self, rows: int) -> Self:
        """The same segment with at most so many rows in a micro-batch."""
        return self.model_copy(update={"config": limit_micro_batch(self.config, rows)})

    @classmethod
    def decode(cls, spec: Mapping[str, Any]) -> Self:
        """Validate an encoded spec. Raises SettingsError, naming each wrong key and value."""
        try:
            return cls.model_validate(spec)
        except ValidationError as error:
            raise SettingsError("the segment to train is wrong:\n" + explain(error, cls)) from error


class SegmentResult(BaseModel):
    """The fields of a TrainingResult and of its summary, which has default values after a failure."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    success: bool
    error_message: str | None = None
    error_kind: ErrorKind | None = None
    fits_smaller: int | None = None
    """After a lack of memory among several ranks: the micro-batch to try next."""

    finished: bool = False
    ended_by: Literal["rows", "steps", "time", "stopped"] | None = None
    global_step: int = 0
    runtime_sec: float = 0.0
    last_checkpoint_path: Path | None = None
    state_path: Path | None = None
    weights: str = ""
    """Digest of the checkpoint."""

    steps: int = 0
    steps_skipped: int = 0
    offset: int = 0
    rows: int = 0
    """The first ``offset`` of the ``rows``, over all epochs, are trained on."""
    rows_too_long: int = 0
    lines_too_long: tuple[int, ...] = ()
    rows_refused: int = 0
    lines_refused: dict[int, str] = Field(default_factory=dict)
    """Why the chat template cannot render a row, by line number: the first of those left out."""
    dataset_digest: str = ""
    tokens: int = 0
    trained_tokens: int = 0
    total_tokens: int = 0
    """Tokens trained since the base model."""
    padding_share: float = 0.0
    train_s: float = 0.0
    tokens_per_s: float = 0.0
    final_loss: float = 0.0
    mean_loss: float | None = None
    loss_curve: tuple[tuple[int, float], ...] = ()

    batch_size: int = 0
    gradient_accumulation: int = 0
    processes: int = 1
    parallelism: Literal["ddp", "fsdp"] = "ddp"
    precision: str = ""
    device: str = ""
    attention: str = ""
    profile: str = ""

    @classmethod
    def of(cls, result: TrainingResult) -> Self:
        fields = asdict(result)
        return cls.model_validate({**fields.pop("summary"), **fields})

    def encode(self) -> dict[str, Any]:
        return self.model_dump(mode="json")

    @classmethod
    def decode(cls, result: Mapping[str, Any]) -> Self:
        return cls.model_validate(result)


def halve_micro_batch(config: TrainerConfig) -> TrainerConfig | None:
    """The same optimizer steps with at most half the rows per micro-batch; None if it has one row already."""
    rows, accumulation = config.hyperparams.batch_size, config.hyperparams.gradient_accumulation
    smaller = next((size for size in range(rows // 2, 0, -1) if rows * accumulation % size == 0), None)
    if smaller is None:
        return None
    split = {"batch_size": smaller, "gradient_accumulation": rows * accumulation // smaller}
    return config.model_copy(update={"hyperparams": config.hyperparams.model_copy(update=split)})


def limit_micro_batch(config: TrainerConfig, rows: int) -> TrainerConfig:
    """The same optimizer steps with at most ``rows`` in a micro-batch, or with one."""
    while config.hyperparams.batch_size > rows and (smaller := halve_micro_batch(config)) is not None:
        config = smaller
    return config


def training_mode(model: ModelSettings) -> str:
    """A description of what is trained: all weights, LoRA or QLoRA adapters. Two settings have the same mode exactly if
    a state of one can be resumed with the other."""
    if not model.lora_rank:
        return FULL
    bits = 4 if model.load_in_4bit else 16
    targets = "+".join(model.lora_targets) or "all"
    return f"lora rank={model.lora_rank} alpha={model.lora_scale:g} targets={targets} bits={bits}"


@dataclass(frozen=True)
class StateInfo:
    """Metadata of a saved state: the training mode, and the digest of the weights that it belongs to."""

    mode: str
    weights: str


def read_state_info(folder: Path) -> StateInfo | None:
    """Read the metadata of a state; None if its file cannot be read."""
    try:
        fields = json.loads((folder / STATE_FILE).read_text(encoding="utf-8"))
        return StateInfo(str(fields.get("mode", FULL)), str(fields.get("base_weights") or fields["weights"]))
    except (OSError, ValueError, AttributeError, KeyError):
        return None
