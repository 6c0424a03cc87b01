"""Failing trackers and diverging losses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
from ratchet.inference.tiny import build_tiny_model
from safetensors.torch import load_file, save_file
from trainer.core import TrainingResult
from trainer.segment import ErrorKind
from transformers import TrainerCallback
from transformers.integrations import integration_utils, is_tensorboard_available

Train = Callable[..., TrainingResult]


class Ledger(TrainerCallback):
    """A tracker as a library would register it."""

    losses: ClassVar[list[float]] = []
    steps: ClassVar[list[int]] = []
    folders: ClassVar[set[str]] = set()

    def on_log(self, args: Any, state: Any, _control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
        if logs and "loss" in logs:
            self.losses.append(logs["loss"])
            self.steps.append(state.global_step)
            self.folders.add(args.output_dir)


class Broken(TrainerCallback):
    calls: ClassVar[list[str]] = []

    def on_log(self, *_: Any, **__: Any) -> None:
        self.calls.append("log")
        raise ConnectionError("the tracking server is away")


@pytest.fixture(autouse=True)
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two libraries more that the Trainer knows."""
    monkeypatch.setitem(integration_utils.INTEGRATION_TO_CALLBACK, "ledger", Ledger)
    monkeypatch.setitem(integration_utils.INTEGRATION_TO_CALLBACK, "broken", Broken)
    Ledger.losses.clear()
    Ledger.steps.clear()
    Ledger.folders.clear()
    Broken.calls.clear()


def test_a_tracker_receives_the_loss(train: Train, sum_file: Path) -> None:
    result = train(sum_file, environment__report_to=("ledger",), monitoring__logging_steps=5)
    assert Ledger.losses == [loss for _, loss in result.summary["loss_curve"]]


def test_the_curve_of_a_tracker_continues_across_segments(train: Train, sum_file: Path, tmp_path: Path) -> None:
    told = {"environment__report_to": ("ledger",), "monitoring__logging_steps": 2}
    first = train(sum_file, "first", **told, stop_after=4)
    assert train(sum_file, "second", **told, after=first).finished
    assert Ledger.steps == [2, 4, 6, 8, 10, 12, 13]
    assert Ledger.folders == {str(tmp_path)}, "beside the status"


@pytest.mark.skipif(not is_tensorboard_available(), reason="tensorboard is not installed")
def test_tensorboard_writes_the_curve(train: Train, sum_file: Path, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    result = train(sum_file, environment__report_to=("tensorboard",), monitoring__logging_steps=5)
    (folder,) = (tmp_path / "runs").iterdir()
    written = EventAccumulator(str(folder)).Reload().Scalars("train/loss")
    curve = [(event.step, pytest.approx(event.value, rel=1e-6)) for event in written]
    assert result.summary["loss_curve"] == curve


def test_a_failing_tracker_is_disabled_and_training_finishes(train: Train, sum_file: Path, tmp_path: Path) -> None:
    result = train(sum_file, environment__report_to=("broken", "ledger"), monitoring__logging_steps=5)
    assert result.finished
    assert Broken.calls == ["log"]
    assert Ledger.losses
    status = json.loads((tmp_path / "run.status.json").read_text())
    assert status["tracker_error"] == "Broken.on_log: ConnectionError: the tracking server is away"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of MLflow's callback, half made
@pytest.mark.parametrize("name", ["tensorboard", "wandb", "mlflow", "trackio"])
def test_a_library_that_is_not_installed_is_named(train: Train, sum_file: Path, name: str) -> None:
    available = integration_utils.get_available_reporting_integrations()
    if name in available:
        pytest.skip(f"{name} is installed here")
    result = train(sum_file, environment__report_to=(name,))
    assert result.error_kind is ErrorKind.SETTINGS
    assert f"report_to '{name}'" in str(result.error_message)
    assert "install" in str(result.error_message)


def test_an_unknown_tracker_is_refused(train: Train, sum_file: Path) -> None:
    result = train(sum_file, environment__report_to=("chalkboard",))
    assert result.error_kind is ErrorKind.SETTINGS
    assert "chalkboard" in str(result.error_message)


@pytest.mark.parametrize("factor", [float("nan"), 1e4])
def test_a_diverged_loss_ends_the_run_and_saves_nothing(
    train: Callable[..., TrainingResult], sum_file: Path, tmp_path: Path, factor: float
) -> None:
    model = build_tiny_model(tmp_path / "broken")
    weights = load_file(model / "model.safetensors")
    weights["model.norm.weight"] *= factor
    save_file(weights, model / "model.safetensors", {"format": "pt"})

    result = train(sum_file, model__path=str(model))

    assert result.error_kind is ErrorKind.DIVERGED
    assert "step 10" in str(result.error_message)
    assert not (tmp_path / "run" / "final_model").exists()
    assert not (tmp_path / "run" / "state").exists()


def test_divergence_after_the_last_report_is_detected_before_saving(
    train: Callable[..., TrainingResult], sum_file: Path, tmp_path: Path
) -> None:
    model = build_tiny_model(tmp_path / "broken")
    weights = load_file(model / "model.safetensors")
    weights["model.norm.weight"] *= float("nan")
    save_file(weights, model / "model.safetensors", {"format": "pt"})

    result = train(sum_file, model__path=str(model), stop_after=3, monitoring__logging_steps=1000)
    assert result.error_kind is ErrorKind.DIVERGED


def test_a_learning_rate_too_high_for_a_larger_model_is_refused(
    train: Callable[..., TrainingResult], sum_file: Path, tmp_path: Path
) -> None:
    larger = build_tiny_model(tmp_path / "larger", hidden_size=512, intermediate_size=4096, num_hidden_layers=2)
    result = train(sum_file, model__path=str(larger), hyperparams__learning_rate=3e-3)
    assert result.error_kind is ErrorKind.SETTINGS
    assert "learning_rate" in str(result.error_message)
