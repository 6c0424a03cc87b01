"""Whether training fits: an estimate by parts, and what `ratchet config check` makes of it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from ratchet.cli.capacity import Shape, budget
from ratchet.cli.main import app
from ratchet.settings.training import HyperparamSettings, ModelSettings
from typer.testing import CliRunner

SMALL = Shape(600_000_000, hidden=1024, intermediate=3072, layers=28, vocabulary=151_936)
LARGE = Shape(8_000_000_000, hidden=4096, intermediate=12_288, layers=36, vocabulary=151_936)
CARD = 24_000_000_000


def needed(shape: Shape, batch_size: int = 1, max_length: int = 1024, **model: object) -> int:
    hyperparams = HyperparamSettings(batch_size=batch_size, max_length=max_length)
    return budget(shape, ModelSettings.model_validate(model), hyperparams, half=True).total


def test_a_card_of_24_gb_holds_all_weights_of_a_small_model_and_adapters_of_a_large_one() -> None:
    assert needed(SMALL, gradient_checkpointing=True) < CARD
    assert needed(LARGE, gradient_checkpointing=True) > CARD
    assert needed(LARGE, gradient_checkpointing=True, lora_rank=16, load_in_4bit=True) < CARD


def test_every_way_out_takes_less() -> None:
    least = needed(SMALL, batch_size=8, lora_rank=16, load_in_4bit=True, gradient_checkpointing=True)
    adapters = needed(SMALL, batch_size=8, lora_rank=16, gradient_checkpointing=True)
    whole = needed(SMALL, batch_size=8, gradient_checkpointing=True)
    assert least < adapters < whole < needed(SMALL, batch_size=8)
    assert needed(SMALL, batch_size=4) < needed(SMALL, batch_size=8)
    assert needed(SMALL, max_length=512) < needed(SMALL)


@pytest.mark.parametrize(("width", "code", "said"), [(1_000_000, 2, "train adapters"), (10, 0, "training needs about")])
def test_config_check_says_whether_it_fits(home: Path, tmp_path: Path, width: int, code: int, said: str) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    header = json.dumps({"w": {"dtype": "F32", "shape": [width, width], "data_offsets": [0, 4]}}).encode()
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    shape = {"hidden_size": 8, "num_hidden_layers": 2, "vocab_size": 100}
    (folder / "config.json").write_text(json.dumps(shape))
    result = CliRunner().invoke(app, ["--set", f"model.path={folder}", "config", "check"])
    assert result.exit_code == code, result.output
    assert said in result.output


@pytest.mark.parametrize("name", ["/nowhere/at/all", "./mine", "~/models/mine", "one/two/three"])
def test_config_check_refuses_a_model_that_is_nowhere(home: Path, name: str) -> None:
    result = CliRunner().invoke(app, ["--set", f"model.path={name}", "config", "check"])
    assert (result.exit_code, f"model.path {name}: no such folder" in result.output) == (2, True), result.output


def test_config_check_refuses_a_folder_without_safetensors_and_takes_a_name_of_the_hub(
    home: Path, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    refused = CliRunner().invoke(app, ["--set", f"model.path={tmp_path}", "config", "check"])
    assert refused.exit_code == 2
    assert "model.safetensors is missing. Only safetensors weights are read" in " ".join(refused.output.split())
    named = CliRunner().invoke(app, ["--set", "model.path=Qwen/Qwen3-0.6B", "config", "check"])
    assert named.exit_code == 0, named.output


def test_config_check_refuses_weights_of_four_bits_without_their_library(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)  # as where it is not installed
    sets = ["--set", "model.lora_rank=8", "--set", "model.load_in_4bit=true"]
    result = CliRunner().invoke(app, [*sets, "config", "check"])
    assert result.exit_code == 2
    assert "pip install 'services/trainer[4bit]'" in result.output
