"""The configuration of the prior system is read, with a warning for every renamed field."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
from ratchet.settings import Settings, load
from ratchet.settings.legacy import FIELDS, Gone, Kept, rename
from ratchet.settings.sources import LegacySetting, names, unknown

PRIOR: dict[str, Any] = {
    "model_path": "models/Qwen3-0.6B",
    "profile": {"name": "emoji_think"},
    "hyperparams": {
        "fp_precision": "bf16",
        "max_length": 2048,
        "batch_size": 1,
        "gradient_accumulation": 16,
        "learning_rate": 2e-4,
        "save_steps": 1000,
        "eval_steps": 50,
        "save_total_limit": 3,
    },
    "monitoring": {"preview_backend": "local", "num_eval_samples": 5, "preview_samples": 6},
    "locked": {
        "base_model": "Qwen/Qwen3-0.6B",
        "model_architecture": "Qwen3ForCausalLM",
        "max_context_length": 4096,
        "vocab_size": 151_936,
    },
}
"""A configuration of the prior system."""


def test_a_config_of_the_prior_system_is_read_with_a_warning_for_each_renamed_field(folder: Path) -> None:
    Path("config.json").write_text(json.dumps(PRIOR))
    with pytest.warns(LegacySetting) as told:
        found = load(Path("config.json"))
    assert found.model.path == "models/Qwen3-0.6B"
    assert found.hyperparams.save_steps == 1000
    assert (found.hyperparams.learning_rate, found.hyperparams.gradient_accumulation) == (2e-4, 16)
    assert (found.monitoring.preview_interval, found.monitoring.preview_samples) == (50, 6)
    assert found.locked.vocab_size == 151_936
    assert found.profile.name == "emoji_think"
    assert sorted(str(warning.message) for warning in told) == [
        "config.json: hyperparams.eval_steps is called monitoring.preview_interval now.",
        "config.json: hyperparams.save_total_limit is ignored: checkpoints are kept by bytes: "
        "retention.checkpoints_gb.",
        "config.json: model_path is called model.path now.",
        "config.json: monitoring.num_eval_samples is ignored: monitoring.preview_samples is set as well, and that is "
        "its name now.",
    ]


def test_current_names_are_read_without_a_warning(folder: Path) -> None:
    Path("config.json").write_text(json.dumps({"hyperparams": {"batch_size": 2}, "home": "there"}))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load(Path("config.json")).hyperparams.batch_size == 2


@pytest.mark.parametrize("name", [name for name, fate in FIELDS.items() if isinstance(fate, Kept)])
def test_every_kept_field_maps_to_a_setting(name: str) -> None:
    fate = FIELDS[name]
    assert isinstance(fate, Kept)
    assert fate.new in set(names(Settings))


@pytest.mark.parametrize("name", [name for name, fate in FIELDS.items() if isinstance(fate, Gone)])
def test_a_dropped_field_is_refused_with_the_reason(name: str) -> None:
    assert name not in set(names(Settings))
    assert "any more: " in unknown(name, Settings)


@pytest.mark.parametrize("name", [name for name, fate in FIELDS.items() if isinstance(fate, Kept) and fate.new != name])
def test_a_renamed_field_is_refused_with_its_new_name(name: str) -> None:
    assert f"did you mean {FIELDS[name].new}?" in unknown(name, Settings)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ({"hyperparams": {"max_steps": -1}}, {}),
        ({"hyperparams": {"save_steps": 0}}, {}),
        ({"hyperparams": {"max_steps": 5}}, {"hyperparams": {"max_steps": 5}}),
        ({"monitoring": {"validation_split": 0.05}}, {"suites": {"held_out_share": 0.05}}),
        ({"output": {"resume_from_checkpoint": "runs/a"}}, {"output": {"resume_from": "runs/a"}}),
        (
            {"monitoring": {"remote_3090_host": "hub", "remote_3090_port": 9, "remote_3090_model_id": None}},
            {"monitoring": {"preview_url": "http://hub:9"}},
        ),
        ({"monitoring": {"remote_3090_host": "http://hub:9"}}, {"monitoring": {"preview_url": "http://hub:9"}}),
        ({"suites": {"families": []}}, {"suites": {"families": []}}),
    ],
)
def test_old_values_are_converted(old: dict[str, Any], new: dict[str, Any]) -> None:
    assert rename(old)[0] == new
