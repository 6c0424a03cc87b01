"""Copies the base model into a folder: the built-in tiny model, a user's folder, or a model from the hub or its local
cache. Adapters that `trainer` has made are merged into their own base.

Runs in a child process, since building and resolving need torch and transformers.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ratchet.errors import BrokenCheckpoint, ChatTemplateError, SettingsError
from ratchet.inference.adapter_folder import is_adapter
from ratchet.inference.locate_model import PATTERNS, located
from ratchet.inference.model_folder import TOKENIZERS, add_old_keys, check_folder, read_json
from ratchet.lines import first_line
from ratchet.run.model_report import (
    GENERATION_CONFIG,
    TEMPLATE,
    TOKENIZER_CONFIG,
    chat_template_text,
    clean_generation_config,
    inspect_model,
    weights_to_copy,
)

TOKENIZER_PATTERNS = ("token*", "vocab*", "merges*", "*.jinja", "special*")


def prepare_base_model(spec: dict[str, Any], progress: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Copy the model ``spec["model"]`` into the folder ``spec["folder"]``, which is returned.

    ``spec["tokenizer"]`` may name another folder for the tokenizer, and ``spec["chat_template"]`` a file. Raises
    SettingsError with a remedy.
    """
    from ratchet.inference.tiny import TINY_MODEL, build_tiny_model

    name, folder = str(spec["model"]), Path(spec["folder"])
    progress({"note": f"preparing {name}"})
    if name == TINY_MODEL:
        build_tiny_model(folder)
    else:
        source = located(name, "model.path")
        for note in _notes_of_usable(source, spec):
            progress({"note": f"{name}: {note}"})
        _copy_whole(name, source, folder)
    if spec.get("tokenizer"):
        _copy(located(str(spec["tokenizer"]), "model.tokenizer_path"), folder, only=TOKENIZER_PATTERNS)
    if spec.get("chat_template"):
        shutil.copyfile(str(spec["chat_template"]), folder / TEMPLATE)
    try:
        clean_generation_config(folder)
        _require_savable_generation_config(folder)
        check_folder(folder)
        add_old_keys(folder)
        _require_template(folder, str(spec.get("tokenizer") or name), str(spec.get("day") or ""))
    except BrokenCheckpoint as error:
        raise SettingsError(f"model.path {name}: {error}") from error
    return {"folder": str(folder)}


def _notes_of_usable(source: Path, spec: dict[str, Any]) -> tuple[str, ...]:
    """What to know of a model. Raises SettingsError for one that cannot be used."""
    tokenizer, template = spec.get("tokenizer"), spec.get("chat_template")
    report = inspect_model(
        source,
        located(str(tokenizer), "model.tokenizer_path") if tokenizer else None,
        Path(str(template)) if template else None,
    )
    if report.refusals:
        raise SettingsError(f"model.path {spec['model']}: {' '.join(report.refusals)}")
    return report.notes


def _copy_whole(name: str, source: Path, folder: Path) -> None:
    """Copy a model with whole weights, which adapters that Ratchet made are merged into."""
    if not is_adapter(source):
        _copy(source, folder)
        return
    from ratchet.inference.model_loading import write_merged

    try:
        write_merged(source, folder)
    except BrokenCheckpoint as error:
        raise SettingsError(f"model.path {name}: {error}") from error


def _copy(source: Path, folder: Path, only: tuple[str, ...] = PATTERNS) -> None:
    """Copy the files of these patterns, and of the weights those that are loaded: some folders have two sets."""
    weights = {file.name for file in weights_to_copy(source)}
    folder.mkdir(parents=True, exist_ok=True)
    for pattern in only:
        for file in source.glob(pattern):
            if file.suffix != ".safetensors" or file.name in weights:
                shutil.copyfile(file, folder / file.name)


def _require_savable_generation_config(folder: Path) -> None:
    """Raise for what transformers reads without complaint, but would refuse to save with the first checkpoint."""
    from transformers import GenerationConfig

    if not (folder / GENERATION_CONFIG).exists():
        return
    try:
        with TemporaryDirectory() as nowhere:
            GenerationConfig.from_pretrained(folder, local_files_only=True).save_pretrained(nowhere)
    except (ValueError, TypeError) as error:
        raise BrokenCheckpoint(
            f"its {GENERATION_CONFIG} cannot be saved with checkpoints: {first_line(str(error))} Correct it, or remove "
            "the file."
        ) from error


def _require_template(folder: Path, name: str, day: str) -> None:
    """Raise for a base model without a fitting chat template, since every system prompts the model through it.

    Keeps the day that a template with a date is told in all checkpoints, and a fast tokenizer for those who count
    tokens without transformers.
    """
    from transformers import AutoTokenizer

    from ratchet.inference.chat_template import DAY, chat_template

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        if not (folder / TOKENIZERS[0]).exists():
            tokenizer.save_pretrained(folder)
        tokenizer.name_or_path = name
        chat_template(tokenizer).require_trainable()
    except ChatTemplateError as error:
        raise SettingsError(
            f"model.path {name}: {error}. A base model that was not tuned for chat has none; any plain template "
            "will do, as long as it ends each answer with a special token (model.chat_template)."
        ) from error
    except (OSError, ValueError, KeyError) as error:
        raise BrokenCheckpoint(f"its tokenizer cannot be loaded: {error}") from error
    if "strftime_now" in (chat_template_text(folder) or ""):
        config = read_json(folder / TOKENIZER_CONFIG)
        config[DAY] = day or datetime.now(UTC).date().isoformat()
        (folder / TOKENIZER_CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
