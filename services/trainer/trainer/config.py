"""A training configuration from a few words, for those who call the engine themselves."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from ratchet.errors import SettingsError
from ratchet.inference.tiny import TINY_MODEL
from ratchet.settings.training import TrainerConfig

_PRETRAINED = {
    "batch_size": 1,
    "gradient_accumulation": 16,
    "learning_rate": 2e-5,
    "warmup_steps": 20,
    "schedule": "constant",
}


def create_default_config(
    dataset_path: str | Path,
    output_dir: str | Path,
    *,
    model_path: str | Path = TINY_MODEL,
    overrides: Mapping[str, Any] | None = None,
) -> TrainerConfig:
    """Defaults that suit the model: those of the built-in tiny one, or careful ones for a pretrained one.

    ``overrides`` has dotted names, as ``{"hyperparams.learning_rate": 1e-3}``. SettingsError names each wrong one.
    """
    sections: dict[str, dict[str, Any]] = {
        "model": {"path": str(model_path)},
        "hyperparams": {} if str(model_path) == TINY_MODEL else dict(_PRETRAINED),
        "data": {"dataset_path": dataset_path},
        "output": {"output_dir": output_dir},
    }
    for name, value in (overrides or {}).items():
        section, dot, field = name.partition(".")
        if not dot:
            raise SettingsError(f"{name!r} is not a setting: write it as section.field")
        sections.setdefault(section, {})[field] = value
    return parse_config(sections)


def parse_config(sections: Mapping[str, Any]) -> TrainerConfig:
    """The sections as a configuration. SettingsError names each unknown key and each wrong value."""
    try:
        return TrainerConfig.model_validate(sections)
    except ValidationError as error:
        lines = [f"  {'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]
        raise SettingsError("the training configuration is wrong:\n" + "\n".join(lines)) from error
