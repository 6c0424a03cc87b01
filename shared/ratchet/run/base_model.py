"""Copies the base model into a folder: the built-in tiny model, a user's folder, or a model from the hub or its local
cache.

Runs in a child process, since building and resolving need torch and transformers.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ratchet.errors import BrokenCheckpoint, ChatTemplateError, SettingsError
from ratchet.inference.model_folder import check_folder

PATTERNS = ("*.safetensors", "*.safetensors.index.json", "*.json", "*.jinja", "*.model", "merges.txt", "vocab.txt")


def prepare_base_model(spec: dict[str, Any], progress: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Copy the model ``spec["model"]`` into the folder ``spec["folder"]``, which is returned.

    ``spec["tokenizer"]`` may name another folder for the tokenizer. Raises SettingsError with a remedy.
    """
    from ratchet.inference.tiny import TINY_MODEL, build_tiny_model

    name, folder = str(spec["model"]), Path(spec["folder"])
    progress({"note": f"preparing {name}"})
    if name == TINY_MODEL:
        build_tiny_model(folder)
    else:
        _copy(_located(name), folder)
    if spec.get("tokenizer"):
        _copy(_located(str(spec["tokenizer"])), folder, only=("token*", "vocab*", "merges*", "*.jinja", "special*"))
    try:
        check_folder(folder)
        _require_template(folder, str(spec.get("tokenizer") or name))
    except BrokenCheckpoint as error:
        raise SettingsError(f"model.path {name}: {error}") from error
    return {"folder": str(folder)}


def _located(name: str) -> Path:
    if Path(name).is_dir():
        return Path(name)
    if Path(name).is_absolute() or name.startswith("."):
        raise SettingsError(f"model.path {name}: no such folder.")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError, RepositoryNotFoundError

    try:
        return Path(snapshot_download(name, allow_patterns=list(PATTERNS)))
    except (LocalEntryNotFoundError, RepositoryNotFoundError, HFValidationError, OSError) as error:
        raise SettingsError(
            f"model.path {name} is neither a folder nor a model of the hub or its local cache: {error}"
        ) from error


def _copy(source: Path, folder: Path, only: tuple[str, ...] = PATTERNS) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for pattern in only:
        for file in source.glob(pattern):
            shutil.copyfile(file, folder / file.name)


def _require_template(folder: Path, name: str) -> None:
    """Raise for a base model without a chat template, since every system prompts the model through it."""
    from transformers import AutoTokenizer

    from ratchet.inference.chat_template import chat_template

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        tokenizer.name_or_path = name
        chat_template(tokenizer).require_trainable()
    except ChatTemplateError as error:
        raise SettingsError(
            f"model.path {name}: {error}. A base model that was not tuned for chat has none; any plain template "
            "will do, as long as it ends each answer with a special token."
        ) from error
    except (OSError, ValueError, KeyError) as error:
        raise BrokenCheckpoint(f"its tokenizer cannot be loaded: {error}") from error
