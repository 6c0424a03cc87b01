"""Builds a training configuration: from defaults for a model, from settings, or from a command line and a file.

It imports no torch."""

from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from ratchet.data.example import Example
from ratchet.data.jsonl import read_examples
from ratchet.errors import SettingsError
from ratchet.inference.tiny import TINY_MODEL
from ratchet.settings import Settings, load
from ratchet.settings.sources import FILE, explain
from ratchet.settings.training import TrainerConfig
from ratchet.training_memory import model_facts
from ratchet.training_plan import UNKNOWN_MODEL, choose_training, row_facts, this_machine

from trainer.run_folder import latest_checkpoint
from trainer.segment import MODEL_FOLDER, STATE_FOLDER

PRIOR_FILE = "config.json"

FLAGS: Mapping[str, str] = {
    "dataset": "data.dataset_path",
    "model": "model.path",
    "output_dir": "output.output_dir",
    "batch_size": "hyperparams.batch_size",
    "learning_rate": "hyperparams.learning_rate",
    "warmup_steps": "hyperparams.warmup_steps",
    "epochs": "hyperparams.num_epochs",
    "max_steps": "hyperparams.max_steps",
    "save_steps": "hyperparams.save_steps",
    "eval_steps": "monitoring.preview_interval",
    "num_eval_samples": "monitoring.preview_samples",
    "max_length": "hyperparams.max_length",
    "precision": "hyperparams.fp_precision",
    "profile": "profile.name",
    "system_prompt": "monitoring.system_prompt_base",
    "resume_from_checkpoint": "output.resume_from",
}
"""Command-line arguments and the setting of each."""


class ConfigLoader:
    """Reads a configuration from a parsed command line, the environment and a file."""

    @staticmethod
    def from_args_and_json(args: Namespace | None = None, file: str | Path | None = None) -> TrainerConfig:
        """Command line > environment > file > defaults.

        ``args`` has attributes named as in FLAGS (None if not set), ``config`` for the file, and ``assign``, a mapping
        of ``section.field`` to value, for all other settings. Without ``config`` or ``file``, RATCHET_CONFIG names the
        file, or it is ``ratchet.toml`` in this folder, or the prior system's ``config.json``, whose names are converted
        with a LegacySetting warning each. Raises SettingsError, naming each wrong key and the closest valid one.
        """
        given = vars(args) if args is not None else {}
        chosen = given.get("config") or file
        if chosen is not None and not Path(chosen).is_file():
            raise SettingsError(f"{chosen}: no such file (--config); `ratchet init` writes one.")
        sections: dict[str, dict[str, Any]] = {}
        assigned: Mapping[str, Any] = given.get("assign") or {}
        flags = {name: given[flag] for flag, name in FLAGS.items() if given.get(flag) is not None}
        for name, value in {**assigned, **flags}.items():
            _set(sections, name, value)
        return trainer_config(load(Path(chosen) if chosen else _prior_file(), **sections))


def trainer_config(settings: Settings) -> TrainerConfig:
    """The configuration of a run of `trainer`. Raises SettingsError if there is no data set."""
    data, output = settings.data.model_dump(), settings.output.model_dump()
    if data["dataset_path"] is None:
        raise SettingsError("there is nothing to train on: give --dataset FILE, or set data.dataset_path.")
    model = settings.model
    if output["resume_from"] is not None:
        run = latest_checkpoint(output["resume_from"])
        if not model.lora_rank:
            model = model.model_copy(update={"path": str(run / MODEL_FOLDER)})
        output["resume_from"] = run / STATE_FOLDER
    if output["output_dir"] is None:
        output["output_dir"] = settings.home.resolve() / "runs" / Path(data["dataset_path"]).stem
    shared = {name: getattr(settings, name) for name in TrainerConfig.model_fields if name in Settings.model_fields}
    return parse_config({**shared, "model": model, "data": data, "output": output})


def create_default_config(
    dataset_path: str | Path,
    output_dir: str | Path,
    *,
    model_path: str | Path = TINY_MODEL,
    overrides: Mapping[str, Any] | None = None,
) -> TrainerConfig:
    """What suits the model, the rows and this machine (see ratchet.training_plan); for the built-in model the settings'
    defaults.

    ``overrides`` has dotted names, such as ``{"hyperparams.learning_rate": 1e-3}``. Raises SettingsError, naming each
    wrong one, and BrokenCheckpoint for a folder that holds no model.
    """
    chosen = {} if str(model_path) == TINY_MODEL else _chosen(Path(model_path), Path(dataset_path))
    sections: dict[str, dict[str, Any]] = {
        **chosen,
        "model": {**chosen.get("model", {}), "path": str(model_path)},
        "data": {"dataset_path": dataset_path},
        "output": {"output_dir": output_dir},
    }
    for name, value in (overrides or {}).items():
        _set(sections, name, value)
    return parse_config(sections)


def _chosen(model: Path, dataset: Path) -> dict[str, dict[str, Any]]:
    is_here = model.is_dir()
    rows = None
    if dataset.is_file():
        found = (example for _, example in read_examples(dataset))
        rows = row_facts((row for row in found if isinstance(row, Example)), model if is_here else None)
    return choose_training(model_facts(model) if is_here else UNKNOWN_MODEL, rows, this_machine()).sections()


def parse_config(sections: Mapping[str, Any]) -> TrainerConfig:
    """Validate the sections. Raises SettingsError, naming each unknown key and each wrong value."""
    try:
        return TrainerConfig.model_validate(sections)
    except ValidationError as error:
        raise SettingsError("the training configuration is wrong:\n" + explain(error, TrainerConfig)) from error


def _set(sections: dict[str, dict[str, Any]], name: str, value: Any) -> None:
    section, dot, field = name.partition(".")
    if not dot:
        raise SettingsError(f"{name!r} is not a setting: write it as section.field")
    sections.setdefault(section, {})[field] = value


def _prior_file() -> Path | None:
    """``config.json`` if there is one and no ratchet.toml, else None."""
    if "RATCHET_CONFIG" in os.environ or Path(FILE).exists() or not Path(PRIOR_FILE).exists():
        return None
    return Path(PRIOR_FILE)
