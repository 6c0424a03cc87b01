"""Every field of the status that the docs name is filled in real runs, and no other is written."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ratchet.settings.legacy import Gone
from ratchet.settings.training import TrainerConfig
from trainer.core import TrainerEngine
from trainer.monitoring import TrainingStatusWriter
from trainer.status_fields import FIELDS, PRIOR
from transformers import TrainerCallback
from transformers.integrations import integration_utils

Configure = Callable[..., TrainerConfig]


class Unreachable(TrainerCallback):
    def on_log(self, *_: Any, **__: Any) -> None:
        raise ConnectionError("the tracking server is away")


def test_a_run_fills_every_field(
    configure: Configure, graded_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(integration_utils.INTEGRATION_TO_CALLBACK, "unreachable", Unreachable)

    def nobody_listens(_: dict[str, Any]) -> None:
        raise BrokenPipeError("the worker is gone")

    config = configure(
        graded_file,
        monitoring__logging_steps=1,
        monitoring__preview_interval=6,
        monitoring__preview_max_tokens=8,
        monitoring__system_prompt_base="Be brief.",
        environment__report_to=("unreachable",),
        hyperparams__num_epochs=2,
    )
    writer = TrainingStatusWriter(tmp_path / "status.json")
    assert TrainerEngine(writer, report=nobody_listens).run_job(config).finished
    status = json.loads(writer.path.read_text())
    assert set(status) == set(FIELDS) - {"error", "error_kind"}
    assert [name for name, value in status.items() if value is None] == ["preview_error"]
    assert (status["state"], status["epoch"], status["system_prompt"]) == ("finished", 2, "Be brief.")
    assert (status["step"], status["last_step"], status["examples_done"]) == (25, 25, 200)
    assert status["remaining_s"] == 0
    assert status["loss_trend"] == "falling"
    assert len(status["loss_curve"]) == 25
    assert status["loss_curve"][-1] == [25, status["loss"]]
    assert 0 < status["learning_rate"] <= config.hyperparams.learning_rate
    assert 0.05 < status["peak_memory_gb"] < 24


def test_a_failure_says_why_and_keeps_how_far_it_came(configure: Configure, graded_file: Path, tmp_path: Path) -> None:
    def stop() -> bool:
        raise OSError("the disk is gone")

    writer = TrainingStatusWriter(tmp_path / "status.json")
    result = TrainerEngine(writer, should_stop=stop).run_job(configure(graded_file))
    status = json.loads(writer.path.read_text())
    assert (status["state"], status["error_kind"]) == ("failed", result.error_kind) == ("failed", "surroundings")
    assert "the disk is gone" in status["error"]
    assert (status["step"], status["examples_total"], status["loss"]) == (0, 100, None)
    assert set(status) <= set(FIELDS)


def test_how_often_progress_is_told_is_set(configure: Configure, graded_file: Path, tmp_path: Path) -> None:
    """A run of more than a second, and less than the interval, tells of its beginning and its end alone."""

    def slowly() -> bool:
        time.sleep(0.4)
        return False

    told: list[int] = []
    config = configure(graded_file, monitoring__status_interval_s=60.0, hyperparams__max_steps=3)
    engine = TrainerEngine(
        TrainingStatusWriter(tmp_path / "status.json"),
        report=lambda progress: told.append(progress["step"]),
        should_stop=slowly,
    )
    assert engine.run_job(config).success
    assert told == [0, 3]


def test_every_field_of_the_prior_system_has_its_place_or_a_reason() -> None:
    assert {fate.new for fate in PRIOR.values() if not isinstance(fate, Gone)} <= set(FIELDS)
    assert all(fate.because for fate in PRIOR.values() if isinstance(fate, Gone))
