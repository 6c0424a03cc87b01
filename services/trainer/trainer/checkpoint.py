"""A checkpoint and its training state on disk: written together, replaced atomically, and restored exactly.

A checkpoint is a plain Hugging Face folder with weights in the precision of the base model, or the adapters alone (see
ratchet.inference.adapter_folder). The state holds everything else that is needed to resume bit for bit: ``state.json``;
``optimizer.safetensors`` with AdamW's moments by parameter name; ``master.safetensors`` with the trained weights in
fp32, where the checkpoint has not all of their bits or training begins from its base; ``order.safetensors`` with the
order of rows while a batch is unfinished. The states of random generators are not saved, since every step is seeded by
its number.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from ratchet.disk import disk_errors
from ratchet.errors import ResumeError
from ratchet.inference.model_folder import add_old_keys
from safetensors import SafetensorError
from safetensors.numpy import load_file as load_arrays
from safetensors.numpy import save_file as save_arrays
from safetensors.torch import load_file, save_file

from trainer.batches import RowOrder
from trainer.distributed import gather, shard_like
from trainer.hardware import Hardware
from trainer.optimizer import Cycle
from trainer.segment import FULL, STATE_FILE

if TYPE_CHECKING:
    from trainer.model import Trainable

VERSION = 1
_OPTIMIZER = "optimizer.safetensors"
_MASTER = "master.safetensors"
_ORDER = "order.safetensors"
_MOMENTS = ("exp_avg", "exp_avg_sq", "step")


@dataclass(frozen=True)
class Position:
    """How far a file has been trained on: the first ``offset`` of the ``rows`` in its order."""

    digest: str
    offset: int
    rows: int

    @property
    def finished(self) -> bool:
        return self.offset >= self.rows


@dataclass(frozen=True)
class TrainingState:
    """The state of a run after its last step."""

    global_step: int
    fresh_at: int
    """Global step at which the optimizer was fresh."""
    tokens: int
    weights: str
    """Digest of the checkpoint that this state belongs to."""
    cycle: Cycle
    position: Position
    scaler: dict[str, Any] | None = None
    """State of the fp16 gradient scaler."""
    mode: str = FULL
    """The result of ``training_mode``."""
    base_weights: str | None = None
    """Digest of the frozen weights under adapters."""

    def to_json(self) -> str:
        return json.dumps({"version": VERSION, **asdict(self)}, indent=2, sort_keys=True) + "\n"


def save_moments(folder: Path, optimizer: dict[str, torch.Tensor], order: RowOrder | None) -> None:
    """Write the tensors of a state: the result of ``moments_by_name``, and the order of an unfinished batch."""
    save_file(optimizer, folder / _OPTIMIZER)
    if order is not None:
        save_arrays({"order": order}, folder / _ORDER)


def save_state(folder: Path, state: TrainingState) -> None:
    """Write ``state.json``."""
    (folder / STATE_FILE).write_text(state.to_json(), encoding="utf-8")


def load_state(folder: Path) -> TrainingState:
    """Read ``state.json``. Raises ResumeError, naming the file, if it is missing, malformed or of another version."""
    path = folder / STATE_FILE
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        version = fields.pop("version")
        if version != VERSION:
            raise ResumeError(f"{path} has version {version}, but this trainer reads {VERSION}: start without it")
        return TrainingState(
            **{
                **fields,
                "cycle": Cycle(**fields["cycle"]),
                "position": Position(**fields["position"]),
            }
        )
    except FileNotFoundError as error:
        raise ResumeError(f"{path} is missing: the state is incomplete (output.resume_from)") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ResumeError(f"{path} is not a training state: {error}") from error


def moments_by_name(model: Any, optimizer: torch.optim.Optimizer, *, keep: bool = True) -> dict[str, torch.Tensor]:
    """AdamW's state as ``<moment>:<parameter>`` tensors; empty if ``keep`` is False (see ``gather``)."""
    return gather(
        (
            (f"{moment}:{name}", optimizer.state[parameter][moment])
            for name, parameter in model.named_parameters()
            if parameter in optimizer.state
            for moment in _MOMENTS
        ),
        keep=keep,
    )


def restore_optimizer(folder: Path, model: Any, optimizer: torch.optim.Optimizer) -> None:
    """Restore saved moments exactly. Raises ResumeError if the parameters differ."""
    saved = _load_tensors(folder / _OPTIMIZER)
    expected = {f"{moment}:{name}" for name, p in model.named_parameters() if p.requires_grad for moment in _MOMENTS}
    if expected != set(saved):
        odd = sorted(expected.symmetric_difference(saved))[:3]
        raise ResumeError(f"{folder / _OPTIMIZER} belongs to another model: it differs in {', '.join(odd)}")
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            optimizer.state[parameter] = {
                moment: shard_like(saved[f"{moment}:{name}"], parameter) for moment in _MOMENTS
            }


def trained_weights(model: Any, *, keep: bool = True) -> dict[str, torch.Tensor]:
    """The trainable weights by name; empty if ``keep`` is False (see ``gather``)."""
    return gather(((name, p) for name, p in model.named_parameters() if p.requires_grad), keep=keep)


def save_master(folder: Path, weights: dict[str, torch.Tensor]) -> None:
    """Save the trained weights in fp32, for a checkpoint with a lower precision, or of adapters."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file(weights, folder / _MASTER)


@torch.no_grad()
def restore_master(folder: Path, model: Any) -> None:
    """Restore the trained weights, if the state has them, of a model that is not sharded yet."""
    if not (folder / _MASTER).exists():
        return
    saved = _load_tensors(folder / _MASTER)
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        if name not in saved or saved[name].shape != parameter.shape:
            raise ResumeError(f"{folder / _MASTER} belongs to another model: it differs in {name}")
        parameter.copy_(saved[name])


def load_order(folder: Path) -> RowOrder:
    """Read the row order of an unfinished batch. Raises ResumeError if it cannot be read."""
    try:
        order: RowOrder = load_arrays(folder / _ORDER)["order"].astype(np.int64)
    except (OSError, KeyError, SafetensorError) as error:
        raise ResumeError(f"{folder / _ORDER} cannot be read: {error}") from error
    return order


def _load_tensors(path: Path) -> dict[str, torch.Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise ResumeError(f"{path} cannot be read: {error}") from error


@dataclass(frozen=True)
class Gathered:
    """The tensors of a model and its optimizer to save: unsharded, in main memory."""

    moments: dict[str, torch.Tensor]
    trained: dict[str, torch.Tensor]
    """The trainable weights, in fp32."""
    weights: dict[str, torch.Tensor] | None
    """All weights of a sharded model, in the precision of a checkpoint; None if the model is not sharded."""


def gather_all(model: Any, trainable: Trainable, optimizer: torch.optim.Optimizer, hardware: Hardware) -> Gathered:
    """Gather all tensors to save. Must be called by every process; the main one gets the tensors. A sharded model is
    unusable afterwards."""
    keep = hardware.processes.is_main
    moments, trained = moments_by_name(model, optimizer, keep=keep), trained_weights(model, keep=keep)
    weights = None
    if hardware.sharded and trainable.adapters is None:
        model.to(trainable.saved_dtype)
        tied = model.all_tied_weights_keys
        weights = gather(((name, w) for name, w in model.state_dict().items() if name not in tied), keep=keep)
    return Gathered(moments, trained, weights)


@contextmanager
def replacing(folder: Path) -> Iterator[Path]:
    """Yield a draft folder that replaces ``folder`` by a rename if the block succeeds.

    The previous folder is moved away and deleted, so memory-mapped files are never written to. A full disk raises
    TransientError, naming the folder, and leaves the previous folder in place.
    """
    with _disk_of(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as scratch:
            draft = Path(scratch) / "new"
            draft.mkdir()
            yield draft
            for file in draft.rglob("*"):
                file.chmod(0o755 if file.is_dir() else 0o644)
            if folder.exists():
                folder.rename(Path(scratch) / "old")
            draft.rename(folder)


@contextmanager
def _disk_of(folder: Path) -> Iterator[None]:
    """``disk_errors`` that also covers safetensors, whose errors have the errno in the message: ``… (os error 28)``."""
    with disk_errors(folder):
        try:
            yield
        except SafetensorError as error:
            number = re.search(r"os error (\d+)", str(error))
            if number is None:
                raise
            raise OSError(int(number[1]), os.strerror(int(number[1])), str(folder)) from error


def write_checkpoint(folder: Path, model: Any, trainable: Trainable, gathered: Gathered) -> None:
    """Write the weights, in the precision of the base, or the adapters alone; and configuration and tokenizer.

    The model is unusable afterwards.
    """
    with replacing(folder) as draft:
        if trainable.adapters is not None:
            trainable.adapters.save(draft, gathered.trained)
            model.generation_config.save_pretrained(draft)
        else:
            model.to(trainable.saved_dtype)
            model.config.use_cache = True
            model.save_pretrained(draft, state_dict=gathered.weights)
        trainable.tokenizer.save_pretrained(draft)
        add_old_keys(draft)
