"""`ratchet init`, `config` and `doctor`: the way in for a model and data of one's own."""

from __future__ import annotations

import json
import os
import re
import tomllib
from pathlib import Path

import pytest
from ratchet.cli.init import render
from ratchet.errors import BrokenCheckpoint
from ratchet.inference.tiny import build_tiny_model
from ratchet.ports import free_port
from ratchet.settings import Settings, load
from ratchet.training_memory import count_parameters

from .running import ratchet

SHAPE = {"hidden_size": 2560, "intermediate_size": 9728, "num_hidden_layers": 36, "vocab_size": 151_936}


def safetensors(folder: Path, shape: tuple[int, ...]) -> Path:
    """The tiny model with the header and the configuration of another one; `init` reads no weights."""
    build_tiny_model(folder)
    header = json.dumps({"weight": {"dtype": "F32", "shape": shape, "data_offsets": [0, 4]}}).encode()
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + b"\0" * 4)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **SHAPE}))
    return folder


def test_the_file_it_writes_is_all_defaults(home: Path) -> None:
    ratchet("init")
    assert tomllib.loads(Path("ratchet.toml").read_text()) == {section: {} for section in _sections()}
    assert "--force" in ratchet("init", code=2).stderr
    ratchet("init", "--force")


def test_every_commented_default_is_the_default(home: Path) -> None:
    text = render({})
    lines = [line.removeprefix("# ") for line in text.splitlines()]
    settings = [line for line in lines if line.startswith("[") or (" = " in line and line[0].islower())]
    found = tomllib.loads("\n".join(line for line in settings if line.split(" = ")[0].isidentifier() or line[0] == "["))
    assert found["queue"]["low_water"] == Settings().queue.low_water
    assert Settings(**{k: v for k, v in found.items() if k in _sections()}) == Settings()


def test_on_a_gpu_the_suites_are_larger(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "bin" / "nvidia-smi"
    tool.parent.mkdir()
    tool.write_text("#!/bin/sh\necho 'NVIDIA GeForce RTX 3090, 24576'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tool.parent}:{os.environ['PATH']}")
    ratchet("init")
    suites = load(Path("ratchet.toml")).suites
    assert (suites.probe_items, suites.eval_items) == (1_000, 1_000)


def test_a_model_that_does_not_fit_is_refused_with_numbers(home: Path, tmp_path: Path) -> None:
    safetensors(tmp_path / "huge", (1_000_000, 1_000_000))
    refusal = ratchet("init", "--model", str(tmp_path / "huge"), code=2).stderr
    assert "does not fit" in refusal
    assert "TB" in refusal
    assert not Path("ratchet.toml").exists()


def test_a_model_too_large_for_one_card_is_shared_by_several(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool = tmp_path / "bin" / "nvidia-smi"
    tool.parent.mkdir()
    tool.write_text('#!/bin/sh\nfor card in a b c d; do echo "NVIDIA GeForce RTX 4090, 24564"; done\n')
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tool.parent}:{os.environ['PATH']}")
    folder = safetensors(tmp_path / "mine", (2_200, 1_000_000))
    assert "each of 4 cards" in ratchet("init", "--full", "--model", str(folder)).stdout
    assert tomllib.loads(Path("ratchet.toml").read_text())["environment"] == {"parallelism": "fsdp"}
    tool.write_text(tool.read_text().replace("a b c d", "a b"))
    Path("ratchet.toml").unlink()
    assert "does not fit" in ratchet("init", "--full", "--model", str(folder), code=2).stderr


def test_a_model_that_fits_is_written_with_careful_settings(home: Path, tmp_path: Path) -> None:
    safetensors(tmp_path / "mine", (6_000, 1_000))
    ratchet("init", "--model", str(tmp_path / "mine"))
    written = tomllib.loads(Path("ratchet.toml").read_text())
    assert written["model"]["path"] == str(tmp_path / "mine")
    assert written["model"]["lora_rank"] == 16
    assert written["hyperparams"]["learning_rate"] == pytest.approx(5e-4)
    ratchet("init", "--force", "--full", "--model", str(tmp_path / "mine"))
    written = tomllib.loads(Path("ratchet.toml").read_text())
    assert "lora_rank" not in written["model"]
    assert written["hyperparams"]["learning_rate"] == pytest.approx(5e-5)


def test_what_a_save_takes_on_disk_is_said(home: Path, tmp_path: Path) -> None:
    model = build_tiny_model(tmp_path / "mine")
    said = ratchet("init", "--model", str(model)).stdout
    assert re.search(r"disk: a checkpoint takes 5\.\d+ MB and its training state 5\.\d+ MB; [\d,]+ checkpoints", said)


def sums(file: Path, count: int = 200, first: int = 0) -> Path:
    numbers = range(first, first + count)
    file.write_text("".join(f'{{"question": "twice {n}?", "answer": "{2 * n}"}}\n' for n in numbers))
    return file


def test_data_becomes_a_task_and_bad_rows_are_named(home: Path, tmp_path: Path) -> None:
    file = sums(tmp_path / "sums.jsonl")
    file.write_text(file.read_text() + "{broken\n")
    result = ratchet("init", "--data", str(file))
    assert "sums.jsonl:201" in result.stderr
    assert "task sums: 200 different rows of sums.jsonl, 1 unreadable." in result.stdout
    assert json.loads(ratchet("data", "list", "--json").stdout)[0]["metric"] == "accuracy"


def test_a_file_without_a_readable_row_is_refused_and_nothing_is_written(home: Path, tmp_path: Path) -> None:
    file = tmp_path / "mine.jsonl"
    file.write_text("{broken\n")
    assert "mine.jsonl:1: not JSON" in ratchet("init", "--data", str(file), code=2).stderr
    assert not Path("ratchet.toml").exists()


def test_the_grading_is_shown_by_example_and_can_be_chosen(home: Path, tmp_path: Path) -> None:
    said = ratchet("init", "--data", str(sums(tmp_path / "sums.jsonl"))).stdout
    assert re.search(r"'\d+' is right \(grader numeric\); 'The answer is \d+\.' is right", said)
    assert "held out" in said
    more = sums(tmp_path / "more.jsonl", 90, first=1_000)
    other = ratchet("init", "--force", "--data", str(more), "--metric", "loss").stdout
    assert "loss, chosen by you" in other
    assert "nats a token" in other


def test_the_built_in_tasks_are_for_the_built_in_model(home: Path, tmp_path: Path) -> None:
    ratchet("init", "--data", str(sums(tmp_path / "sums.jsonl")))
    assert len(load().suites.families) == 3
    model = build_tiny_model(tmp_path / "mine")
    ratchet("init", "--force", "--model", str(model))
    assert load().suites.families == ()


def test_parameters_are_counted_from_the_headers(tmp_path: Path) -> None:
    assert count_parameters(safetensors(tmp_path / "m", (3, 5))) == 15
    (tmp_path / "m" / "model.safetensors").write_bytes(b"\xff" * 20)
    with pytest.raises(BrokenCheckpoint, match="not a safetensors file"):
        count_parameters(tmp_path / "m")
    (tmp_path / "none").mkdir()
    with pytest.raises(BrokenCheckpoint, match="pickled"):
        count_parameters(tmp_path / "none")


def test_config_show_marks_what_differs(home: Path) -> None:
    shown = ratchet("--set", "queue.low_water=500", "config", "show", "queue").stdout.splitlines()
    assert "* queue.low_water = 500  # --set" in shown
    assert f"  queue.high_water = {Settings().queue.high_water}" in shown
    assert "there are:" in ratchet("config", "show", "nonsense", code=2).stderr


def test_config_show_masks_secrets(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RATCHET_REDIS__URL", "redis://:hunter2@host:6379/0")
    assert "hunter2" not in ratchet("config", "show").stdout


def test_config_check_refuses_a_gate_without_power(home: Path) -> None:
    assert "the settings are valid" in ratchet("config", "check").stdout
    assert "Use " in ratchet("--set", "suites.confirm_items=60", "config", "check", code=2).stderr


def test_config_schema_is_that_of_the_settings(home: Path) -> None:
    assert json.loads(ratchet("config", "schema").stdout)["properties"].keys() == Settings.model_fields.keys()


def test_doctor_names_what_would_stop_a_run(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RATCHET_SERVING__PORT", str(free_port()))
    findings = {f["check"]: f for f in json.loads(ratchet("doctor", "--json").stdout)}
    assert findings["ledger"]["state"] == "note"
    assert findings["systems"]["state"] == "ok"


def _sections() -> set[str]:
    return set(Settings.model_fields) - {"home"}
