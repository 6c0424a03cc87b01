"""The configuration of the prior system is read, and every name of it that is another one now is told."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
from ratchet.settings import Settings, load
from ratchet.settings.file import LegacySetting, rename
from ratchet.settings.legacy import FIELDS, Gone, Kept
from ratchet.settings.nearest import names, unknown

LIVE: dict[str, Any] = {
    "model_name": "qwen3_0.6b",
    "model_display_name": "Qwen3 0.6B",
    "model_path": "models/Qwen3-0.6B",
    "current_model_dir": "current_model",
    "batch_size": 1,
    "gradient_accumulation": 1,
    "learning_rate": 4e-4,
    "warmup": 100,
    "epochs": 1,
    "log_steps": 200,
    "save_steps": 1000,
    "poll_interval": 30,
    "snapshot_time": "03:00",
    "max_length": 2048,
    "base_model": "Qwen/Qwen3-0.6B",
    "eval_max_tokens": 4096,
    "eval_timeout_seconds": 120,
    "self_correction": {"enabled": True, "auto_queue": True, "max_examples": 200, "generation_interval": None},
    "auto_generate": {"enabled": True, "count": 100_000, "threshold": 0, "payload": {}},
    "remote_eval": {"enabled": True, "metrics": ["accuracy", "loss"]},
    "curriculum": {"enabled": True, "target_accuracy": 0.75, "progression_mode": "automatic"},
    "profile": {"name": "emoji_think"},
    "hyperparams": {
        "fp_precision": "bf16",
        "max_length": 2048,
        "batch_size": 1,
        "gradient_accumulation": 16,
        "learning_rate": 2e-4,
    },
    "locked": {
        "base_model": "Qwen/Qwen3-0.6B",
        "model_architecture": "Qwen3ForCausalLM",
        "max_context_length": 4096,
        "vocab_size": 151_936,
    },
}
"""As the prior system ran: flat keys beside sections, which contradict each other."""


def test_its_live_file_is_read_with_a_warning_a_name(folder: Path) -> None:
    Path("config.json").write_text(json.dumps(LIVE))
    with pytest.warns(LegacySetting) as told:
        found = load(Path("config.json"))
    assert found.model.path == "models/Qwen3-0.6B"
    assert found.hyperparams.warmup_steps == 100
    assert found.hyperparams.save_steps == 1000
    assert (found.hyperparams.learning_rate, found.hyperparams.gradient_accumulation) == (2e-4, 16)
    assert found.monitoring.logging_steps == 200
    assert found.suites.max_new_tokens == 4096
    assert found.curriculum.mastery == 0.75
    assert found.locked.vocab_size == 151_936
    assert found.profile.name == "emoji_think"
    said = [str(warning.message) for warning in told]
    assert "config.json: warmup is called hyperparams.warmup_steps now." in said
    assert any(line.startswith("config.json: poll_interval is ignored: a batch that is queued wakes") for line in said)
    assert any("learning_rate is ignored: hyperparams.learning_rate is set as well" in line for line in said)


def test_names_of_today_are_read_without_a_word(folder: Path) -> None:
    Path("config.json").write_text(json.dumps({"hyperparams": {"batch_size": 2}, "home": "there"}))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load(Path("config.json")).hyperparams.batch_size == 2


@pytest.mark.parametrize("name", [name for name, fate in FIELDS.items() if isinstance(fate, Kept)])
def test_a_kept_field_has_a_place(name: str) -> None:
    fate = FIELDS[name]
    assert isinstance(fate, Kept)
    assert fate.new in set(names(Settings))


@pytest.mark.parametrize("name", [name for name, fate in FIELDS.items() if isinstance(fate, Gone)])
def test_a_field_that_is_gone_is_no_setting_and_says_why(name: str) -> None:
    assert name not in set(names(Settings))
    assert "any more: " in unknown(name, Settings)


@pytest.mark.parametrize("name", [name for name, fate in FIELDS.items() if isinstance(fate, Kept) and fate.new != name])
def test_a_renamed_field_is_suggested_by_its_name_of_today(name: str) -> None:
    assert f"did you mean {FIELDS[name].new}?" in unknown(name, Settings)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ({"environment": {"report_to": ["none"]}}, {"environment": {"report_to": []}}),
        ({"environment": {"report_to": "tensorboard"}}, {"environment": {"report_to": ["tensorboard"]}}),
        ({"hyperparams": {"max_steps": -1}}, {"hyperparams": {"max_steps": None}}),
        ({"hyperparams": {"save_steps": 0}}, {"hyperparams": {"save_steps": None}}),
        ({"environment": {"max_grad_norm": 0.5}}, {"hyperparams": {"max_grad_norm": 0.5}}),
        ({"lora_r": 0, "lora_alpha": 0, "use_qlora": False}, {"model": {"lora_rank": 0, "load_in_4bit": False}}),
        ({"data": {"validation_dataset_path": "mine.jsonl"}}, {"suites": {"files": ["mine.jsonl"]}}),
        ({"monitoring": {"validation_split": 0.05}}, {"suites": {"held_out_share": 0.05}}),
        ({"description": "x", "config_version": "2.0"}, {}),
        (
            {"monitoring": {"remote_3090_host": "hub", "remote_3090_port": 9, "remote_3090_model_id": None}},
            {"monitoring": {"preview_url": "http://hub:9"}},
        ),
        ({"suites": {"families": []}}, {"suites": {"families": []}}),
    ],
)
def test_values_are_turned_into_those_of_today(old: dict[str, Any], new: dict[str, Any]) -> None:
    assert rename(old)[0] == new
