"""Whether a model fits this machine: cards and processes, and what `config check` says."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from ratchet.capacity import check_training, step_of, training_problem
from ratchet.cli.main import app
from ratchet.errors import SettingsError
from ratchet.settings import Settings
from ratchet.training_memory import training_memory
from typer.testing import CliRunner

CARDS = {0: 23, 1: 23}


@pytest.mark.parametrize(
    ("environment", "sizes_gb", "said"),
    [
        ({"parallelism": "fsdp"}, {0: 23}, "needs several processes"),
        ({"parallelism": "fsdp", "processes": 1}, CARDS, "seen here: 2"),
        ({"processes": 3}, CARDS, "of 2 cards 2 have that"),
        ({"processes": 2}, {0: 23, 1: 5}, "of 2 cards 1 have that"),
        ({"processes": 2, "device": "cuda"}, {}, "of 0 cards 0 have that"),
        ({"processes": 2, "device": "cuda:1"}, CARDS, "environment.device names one"),
    ],
)
def test_an_impossible_number_of_processes_is_refused_with_the_way_out(
    tmp_path: Path, environment: dict[str, Any], sizes_gb: dict[int, int], said: str
) -> None:
    problem = training_problem(Settings(home=tmp_path, environment=environment), sizes_gb)
    assert said in problem
    assert "environment." in problem


@pytest.mark.parametrize(
    ("environment", "sizes_gb"),
    [
        ({}, {}),
        ({}, CARDS),
        ({"parallelism": "fsdp"}, CARDS),
        ({"parallelism": "fsdp", "processes": 4, "device": "cpu"}, {}),
        ({"processes": 4}, {}),
    ],
)
def test_a_possible_number_of_processes_is_accepted(
    tmp_path: Path, environment: dict[str, Any], sizes_gb: dict[int, int]
) -> None:
    assert training_problem(Settings(home=tmp_path, environment=environment), sizes_gb) == ""


def test_weights_of_4_bits_are_not_sharded(tmp_path: Path) -> None:
    model = {"lora_rank": 8, "load_in_4bit": True}
    settings = Settings(home=tmp_path, model=model, environment={"parallelism": "fsdp"})
    assert "does not shard 4-bit weights" in training_problem(settings, CARDS)


def test_the_rows_of_a_step_are_shown_with_their_factors(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, hyperparams={"batch_size": 4, "gradient_accumulation": 8})
    assert step_of(settings, 1) == "a step takes 32 rows: 1 process x batch_size 4 x gradient_accumulation 8."
    assert "96 rows: 3 processes (ddp)" in step_of(settings, 3)


def test_on_a_cpu_processes_share_the_memory_of_the_machine() -> None:
    (alone, _), (each, where) = training_memory(1, on_cpu=True), training_memory(4, on_cpu=True)
    assert each < alone / 2
    assert "for each of 4 processes" in where


@pytest.mark.parametrize(
    ("width", "said"), [(1_000_000, "environment.parallelism fsdp"), (10, "in each of 2 processes")]
)
def test_the_model_has_to_fit_each_process(tmp_path: Path, width: int, said: str) -> None:
    header = json.dumps({"w": {"dtype": "F32", "shape": [width, width], "data_offsets": [0, 4]}}).encode()
    (tmp_path / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    (tmp_path / "config.json").write_text(json.dumps({"hidden_size": 8, "num_hidden_layers": 2, "vocab_size": 100}))
    settings = Settings(home=tmp_path, model={"path": str(tmp_path)}, environment={"processes": 2, "device": "cpu"})
    try:
        told = "\n".join(check_training(settings))
    except SettingsError as error:
        told = str(error)
    assert said in told


def test_a_host_that_does_not_train_reports_no_capacity(tmp_path: Path) -> None:
    assert list(check_training(Settings(home=tmp_path, placement={"roles": ["3090"]}))) == []


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
def test_config_check_refuses_a_missing_model(home: Path, name: str) -> None:
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
