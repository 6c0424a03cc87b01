"""Where a model comes from: a folder, the built-in one, or a hub name, which is a folder once it is downloaded."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import snapshot_download
from ratchet.errors import BrokenCheckpoint
from ratchet.inference.tiny import resolve_model
from ratchet.settings.training import TrainerConfig

NEEDED = ("*.json", "*.jinja", "*.txt", "tokenizer.model", "model*.safetensors")
"""Files of a hub repository that are read: no code, and no weights but safetensors."""


def with_local_model(config: TrainerConfig) -> TrainerConfig:
    """The configuration with model and tokenizer as folders, so that weights have a digest and a place to stay.

    Raises BrokenCheckpoint for what is neither a folder nor a model of the hub, or of its cache where offline.
    """
    model = config.model
    found = {"path": local_folder(resolve_model(model.path, config.output.output_dir), "model.path")}
    if model.tokenizer_path is not None:
        found["tokenizer_path"] = local_folder(model.tokenizer_path, "model.tokenizer_path")
    return config.model_copy(update={"model": model.model_copy(update=found)})


def local_folder(name: str, setting: str) -> str:
    """The folder as it is, or that of the hub's model in the local cache, downloaded where it is missing."""
    if Path(name).exists():
        return name
    try:
        return snapshot_download(name, allow_patterns=list(NEEDED))
    except (OSError, ValueError) as error:
        raise BrokenCheckpoint(f"{name} is no folder, and no model of the hub ({setting}): {error}") from error
