from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from ratchet.inference.tiny import build_tiny_model
from safetensors.torch import load_file, save_file
from trainer.core import TrainingResult
from trainer.segment import ErrorKind


@pytest.mark.parametrize("factor", [float("nan"), 1e4])
def test_a_loss_that_is_not_finite_or_beyond_guessing_ends_the_run_and_saves_nothing(
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


def test_divergence_after_the_last_report_is_seen_before_anything_is_saved(
    train: Callable[..., TrainingResult], sum_file: Path, tmp_path: Path
) -> None:
    model = build_tiny_model(tmp_path / "broken")
    weights = load_file(model / "model.safetensors")
    weights["model.norm.weight"] *= float("nan")
    save_file(weights, model / "model.safetensors", {"format": "pt"})

    result = train(sum_file, model__path=str(model), stop_after=3, monitoring__logging_steps=1000)
    assert result.error_kind is ErrorKind.DIVERGED


def test_a_rate_that_would_ruin_a_larger_model_is_refused(
    train: Callable[..., TrainingResult], sum_file: Path, tmp_path: Path
) -> None:
    larger = build_tiny_model(tmp_path / "larger", hidden_size=512, intermediate_size=4096, num_hidden_layers=2)
    result = train(sum_file, model__path=str(larger), hyperparams__learning_rate=3e-3)
    assert result.error_kind is ErrorKind.SETTINGS
    assert "learning_rate" in str(result.error_message)
