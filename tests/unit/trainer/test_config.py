from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel
from ratchet.errors import SettingsError
from ratchet.settings.training import TrainerConfig
from trainer.config import create_default_config, parse_config

SECTIONS: dict[str, Any] = {"data": {"dataset_path": "rows.jsonl"}, "output": {"output_dir": "run"}}


def fields(model: type[BaseModel], prefix: str = "") -> list[tuple[str, Any]]:
    found = []
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            found += fields(field.annotation, f"{prefix}{name}.")
        else:
            found.append((prefix + name, field))
    return found


@pytest.mark.parametrize(("name", "field"), fields(TrainerConfig))
def test_every_field_has_a_description(name: str, field: Any) -> None:
    assert field.description, name
    assert field.description.endswith("."), name


def test_dump_and_load_give_the_same() -> None:
    config = create_default_config("rows.jsonl", "run", overrides={"model.lora_targets": ("q_proj", "v_proj")})
    assert TrainerConfig.model_validate_json(config.model_dump_json()) == config


def test_defaults_suit_the_model() -> None:
    tiny = create_default_config("rows.jsonl", "run")
    own = create_default_config("rows.jsonl", "run", model_path="some/model")
    assert tiny.hyperparams.learning_rate >= 1e-3
    assert (own.model.lora_rank, own.hyperparams.learning_rate) == (16, 2e-4)
    full = create_default_config("rows.jsonl", "run", model_path="some/model", overrides={"model.lora_rank": 0})
    assert full.model.lora_rank == 0


def test_overrides_win_by_dotted_name() -> None:
    config = create_default_config("a", "b", overrides={"hyperparams.batch_size": 2, "output.output_dir": "c"})
    assert (config.hyperparams.batch_size, config.output.output_dir) == (2, Path("c"))


@pytest.mark.parametrize(
    ("section", "field", "value"),
    [
        ("hyperparams", "batch_size", 0),
        ("hyperparams", "batch_sise", 4),
        ("hyperparams", "learning_rate", 0.0),
        ("hyperparams", "learning_rate", 1.0),
        ("hyperparams", "schedule", "exponential"),
        ("hyperparams", "segment_max_s", 901),
        ("hyperparams", "fp_precision", "int8"),
        ("model", "path", ""),
        ("environment", "device", "tpu"),
        ("data", "seed", -1),
        ("nonsense", "x", 1),
    ],
)
def test_a_wrong_setting_is_named(section: str, field: str, value: object) -> None:
    with pytest.raises(SettingsError, match=section):
        parse_config({**SECTIONS, section: {**SECTIONS.get(section, {}), field: value}})


def test_several_mistakes_are_reported_at_once() -> None:
    with pytest.raises(SettingsError) as caught:
        parse_config({**SECTIONS, "hyperparams": {"batch_size": "many", "max_length": 1}})
    assert "hyperparams.batch_size" in str(caught.value)
    assert "hyperparams.max_length" in str(caught.value)


def test_an_override_without_a_section_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"section\.field"):
        create_default_config("a", "b", overrides={"batch_size": 2})
