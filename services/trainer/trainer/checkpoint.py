"""Publishing what a segment made: a plain Hugging Face folder, and beside it the state to go on from."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from ratchet.disk import disk_trouble
from safetensors import SafetensorError

from trainer.adapters import ADAPTER_FOLDER
from trainer.hardware import Hardware
from trainer.loading import Trainable
from trainer.sharding import gather
from trainer.state import moments_by_name, trained_weights


@dataclass(frozen=True)
class Gathered:
    """What is saved of a model and its optimizer, whole and in main memory, whoever held which part of it."""

    moments: dict[str, torch.Tensor]
    trained: dict[str, torch.Tensor]
    """The weights that learn, in fp32."""
    weights: dict[str, torch.Tensor] | None
    """All weights of a model that was shared out, in the precision that is served; None where it stands whole."""


def gather_all(model: Any, trainable: Trainable, optimizer: torch.optim.Optimizer, hardware: Hardware) -> Gathered:
    """Every process has to call it, and the first one gets what there is. Uses a model up that is shared out."""
    keep = hardware.processes.is_first
    moments, trained = moments_by_name(model, optimizer, keep=keep), trained_weights(model, keep=keep)
    weights = None
    if hardware.sharded and trainable.adapters is None:
        model.to(hardware.saved_dtype)
        tied = model.all_tied_weights_keys
        weights = gather(((name, w) for name, w in model.state_dict().items() if name not in tied), keep=keep)
    return Gathered(moments, trained, weights)


@contextmanager
def replacing(folder: Path) -> Iterator[Path]:
    """A draft folder that takes the place of ``folder`` by a rename, if the block succeeds.

    What was there before is moved away and deleted: files that someone has mapped are never written to. A disk that
    takes no more is a TransientError that names the folder; then nothing has changed.
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
    """``disk_trouble`` for safetensors too, which tells what the system said in words: ``… (os error 28)``."""
    with disk_trouble(folder):
        try:
            yield
        except SafetensorError as error:
            number = re.search(r"os error (\d+)", str(error))
            if number is None:
                raise
            raise OSError(int(number[1]), os.strerror(int(number[1])), str(folder)) from error


def write_checkpoint(folder: Path, model: Any, trainable: Trainable, hardware: Hardware, gathered: Gathered) -> None:
    """The model, in the precision that is served, with all that a server needs. Uses the model up.

    Adapters are merged into its weights, so that whatever serves whole models serves this one, and lie beside them.
    """
    with replacing(folder) as draft:
        if trainable.adapters is not None:
            trainable.adapters.save(draft / ADAPTER_FOLDER, gathered.trained)
            model = trainable.adapters.merged(hardware, draft / ADAPTER_FOLDER)
        model.to(hardware.saved_dtype)
        model.config.use_cache = True
        model.save_pretrained(draft, state_dict=gathered.weights)
        trainable.tokenizer.save_pretrained(draft)
